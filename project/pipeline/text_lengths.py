"""Measure the length of descriptions before a run, without a model."""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..config.schema import Config
from ..data.dataset_card import Facts
from ..data.record import Record
from ..llm.store.store import Store
from .alignment import join_parts
from .describe import describe


def descriptions(records: Sequence[Record], config: Config) -> list[str]:
    """Return the text of each record before alignment, from text and table only, so that no model is loaded."""
    without_images = [replace(record, image=None) for record in records]
    with tempfile.TemporaryDirectory() as folder, Store(folder) as store:
        return [join_parts(parts) for parts in describe(without_images, config.experts, store)]


def text_lengths(texts: Sequence[str], max_tokens: int | None, tokenizer: Any) -> tuple[Facts, list[str]]:
    """Return a table of the text lengths, and a warning if some texts exceed `max_tokens`.

    Lengths are in tokens, or in words without a tokenizer. `max_tokens` is None for a model without a limit.
    """
    if tokenizer is None:
        unit, lengths = "words", [len(text.split()) for text in texts]
    else:
        unit = "tokens"
        lengths = [len(ids) for ids in tokenizer(list(texts), verbose=False)["input_ids"]]
    longer = 0.0 if max_tokens is None else float(np.mean(np.array(lengths) > max_tokens))
    median, high = np.quantile(lengths, (0.5, 0.95))
    title = f"Length of {len(texts)} texts before alignment, text and table alone"
    limit = "no limit" if max_tokens is None else f"longer than model.max_tokens={max_tokens}"
    table = Facts(title, ("unit", "median", "95 %", limit), [(unit, f"{median:.0f}", f"{high:.0f}", f"{longer:.1%}")])
    warning = (
        f"{longer:.1%} of the texts have more than {max_tokens} {unit} (median {median:.0f}, 95 % "
        f"{high:.0f}) and would be cut; raise model.max_tokens, or lower experts.max_words"
    )
    return table, [warning] if longer else []
