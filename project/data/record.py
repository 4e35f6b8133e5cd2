"""Define Record, one row of a data set, and random generators seeded by the parts of a name."""

import hashlib
from dataclasses import dataclass

import numpy as np

from .images import Pictures

MODALITIES = ("image", "text", "table")
"""The modalities in their usual reading order. Each is a field of Record and a key of pipeline.modalities.REGISTRY."""

Cell = str | float | None


@dataclass(frozen=True)
class Record:
    """One row of a data set.

    A modality is absent if it is None or empty. A missing cell of a table is None. `target` is a class name, a number,
    or None if it is unknown. `order` is the reading order of the modalities. `split` is set if the source assigns the
    row to a split. Raises ValueError if `order` is not a permutation of MODALITIES.
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
        """Return the modalities that this record has, in reading order."""
        return tuple(name for name in self.order if not _is_empty(getattr(self, name)))


def _is_empty(value: object) -> bool:
    """Return True if the value of a modality is None, blank, or contains only None."""
    if isinstance(value, str):
        return not value.strip()
    if isinstance(value, dict | tuple):
        return all(item is None for item in (value.values() if isinstance(value, dict) else value))
    return value is None


def seeded(*parts: object) -> np.random.Generator:
    """Return a random generator seeded by the parts only: the same on every machine and in every process."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))
