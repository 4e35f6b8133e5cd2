"""The registry of modalities. A new one needs a field of Record, a line in REGISTRY, and its own files."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..config.schema import ExpertsConfig
from ..corruption.image import gaussian_noise
from ..corruption.table import column_dropout
from ..corruption.text import word_dropout
from ..experts.image import describe_images, image_summary
from ..experts.serialization import describe_table, describe_text
from ..llm.store.store import Store


def _one_by_one(
    expert: Callable[[Any, ExpertsConfig], str],
) -> Callable[[Sequence[Any], ExpertsConfig, Store], list[str]]:
    """Return an expert on a list of values from an expert on one value."""
    return lambda values, config, store: [expert(value, config) for value in values]


def _cells(table: dict) -> str:
    return ", ".join(f"{column}={cell}" for column, cell in table.items() if cell is not None)


@dataclass(frozen=True)
class Modality:
    """The functions of a modality.

    `noise` corrupts a value at a level in [0, 1], whose meaning is `unit`; `describe` is the expert, which returns one
    text for each value; `format_value` formats a value for a terminal.
    """

    noise: Callable[[Any, float, Any], Any]
    unit: str
    describe: Callable[[Sequence[Any], ExpertsConfig, Store], list[str]]
    format_value: Callable[[Any], str]


REGISTRY = {
    "image": Modality(gaussian_noise, "standard deviation of pixels in [0, 1]", describe_images, image_summary),
    "text": Modality(word_dropout, "probability that a word is dropped", _one_by_one(describe_text), str),
    "table": Modality(column_dropout, "probability that a column is dropped", _one_by_one(describe_table), _cells),
}
