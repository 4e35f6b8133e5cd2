"""Record -> descriptions: one expert a modality."""

import re
from collections.abc import Sequence

from ..config.schema import ExpertsConfig
from ..data.record import Record
from ..llm.store.store import Store
from .alignment import Parts
from .modalities import REGISTRY


def describe(records: Sequence[Record], config: ExpertsConfig, store: Store) -> list[Parts]:
    """The present modalities of each record in its reading order, each as text of at most max_words words."""
    said: dict[tuple[int, str], str] = {}
    for name, modality in REGISTRY.items():
        having = [index for index, record in enumerate(records) if name in record.present]
        texts = modality.describe([getattr(records[index], name) for index in having], config, store)
        said |= {(index, name): _cut(text, config.max_words) for index, text in zip(having, texts, strict=True)}
    return [tuple((name, said[index, name]) for name in record.present) for index, record in enumerate(records)]


def _cut(text: str, words: int) -> str:
    """The first words of a text, with the white space between them."""
    end = re.match(rf"\s*(?:\S+\s*){{0,{words}}}", text).end()
    return text[:end].strip()
