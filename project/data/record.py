"""What flows through the pipeline: one Record a row, and the modalities that it may hold."""

import hashlib
from dataclasses import dataclass

import numpy as np

from .images import Pictures

MODALITIES = ("image", "text", "table")
"""The modalities in their usual reading order; each is a field of Record and a line of modality.REGISTRY."""

Cell = str | float | None


@dataclass(frozen=True)
class Record:
    """One row of a data set. A modality that is None is absent; an empty text or table counts as absent too.

    A missing cell of a table is None. `order` is the order in which the present modalities are read. `target` is the
    name of a class or a number, and None where it is unknown. `split` is the split that it must be in, where its source
    says so.
    """

    id: str
    group: str
    image: Pictures | None = None
    text: str | None = None
    table: dict[str, Cell] | None = None
    target: str | float | None = None
    order: tuple[str, ...] = MODALITIES
    split: str | None = None

    def __post_init__(self):
        if sorted(self.order) != sorted(MODALITIES):
            raise ValueError(f"record {self.id}: order {self.order} is not a permutation of {MODALITIES}")

    @property
    def present(self) -> tuple[str, ...]:
        """The modalities that this record has, in reading order."""
        return tuple(name for name in self.order if not _says_nothing(getattr(self, name)))


def _says_nothing(value: object) -> bool:
    """Whether the value of a modality is None, blank, or holds nothing but None."""
    if isinstance(value, str):
        return not value.strip()
    if isinstance(value, dict | tuple):
        return all(item is None for item in (value.values() if isinstance(value, dict) else value))
    return value is None


def seeded(*parts: object) -> np.random.Generator:
    """A generator that depends on the parts alone, equal on every machine and in every process."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))
