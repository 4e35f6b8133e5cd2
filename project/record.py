"""What flows through the pipeline: one Record a row, and the modalities that it may hold."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

MODALITIES = ("image", "text", "table")


@dataclass(frozen=True)
class Record:
    """One row of a data set. A modality that is None is absent; an empty text or table counts as absent too.

    `order` is the order in which the present modalities are read; `target` is None where the label is unknown.
    """

    id: str
    group: str
    image: Image.Image | Path | None = None
    text: str | None = None
    table: dict[str, str | float] | None = None
    target: str | None = None
    order: tuple[str, ...] = MODALITIES

    def __post_init__(self):
        if sorted(self.order) != sorted(MODALITIES):
            raise ValueError(f"record {self.id}: order {self.order} is not a permutation of {MODALITIES}")

    @property
    def present(self) -> tuple[str, ...]:
        """The modalities that this record has, in reading order."""
        return tuple(name for name in self.order
                     if getattr(self, name) not in (None, {}) and (name != "text" or self.text.strip()))


def pixels(record: Record) -> np.ndarray:
    """The image of a record as float64 RGB in [0, 1], shape (height, width, 3). Raises OSError if unreadable."""
    if isinstance(record.image, Path):
        with Image.open(record.image) as image:
            return np.asarray(image.convert("RGB"), dtype=np.float64) / 255
    return np.asarray(record.image.convert("RGB"), dtype=np.float64) / 255


def with_pixels(record: Record, values: np.ndarray) -> Record:
    """The record with another image; values are float RGB, clipped to [0, 1] and rounded to 8 bits."""
    return replace(record, image=Image.fromarray(np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)))


def seeded(*parts: object) -> np.random.Generator:
    """A generator that depends on the parts alone, equal on every machine and in every process."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))
