"""Describe a record: one expert turns each modality into text."""

import re
from collections.abc import Sequence

from ..config.schema import ExpertsConfig
from ..data.record import Record
from ..llm.store.store import Store
from .alignment import Parts
from .modalities import REGISTRY


def describe(records: Sequence[Record], config: ExpertsConfig, store: Store) -> list[Parts]:
    """Return the present modalities of each record in its reading order, each as a text of at most max_words words."""
    descriptions: dict[tuple[int, str], str] = {}
    for name, modality in REGISTRY.items():
        present = [index for index, record in enumerate(records) if name in record.present]
        texts = modality.describe([getattr(records[index], name) for index in present], config, store)
        for index, text in zip(present, texts, strict=True):
            descriptions[index, name] = _truncate(text, config.max_words)
    return [tuple((name, descriptions[index, name]) for name in record.present) for index, record in enumerate(records)]


def _truncate(text: str, words: int) -> str:
    """Return the first words of a text, with the white space between them."""
    end = re.match(rf"\s*(?:\S+\s*){{0,{words}}}", text).end()
    return text[:end].strip()
