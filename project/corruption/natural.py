"""Realistic corruptions by name: what a camera, a typist, a scanner or a database does to one modality.

To add one, write a function f(value, level, rng) -> value in the module of its modality, and add a line to NATURAL. At
level 0 it must be the identity, and its random draws must not depend on the level.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .image import blur, crop, darkness, jpeg
from .table import stale_cells, swapped_cells, unit_changes
from .text import ocr_errors, truncation, typing_errors


@dataclass(frozen=True)
class Damage:
    """A realistic corruption of one modality.

    `apply` corrupts a value at a level in [0, 1], and `unit` explains the level. If `from_others` is set, `apply` takes
    the training rows as its last argument.
    """

    modality: str
    apply: Callable[..., Any]
    unit: str
    from_others: bool = False


NATURAL = {
    "blur": Damage("image", blur, "standard deviation, in 1/32 of the shorter side"),
    "jpeg": Damage("image", jpeg, "quality 100 / 20 ** level"),
    "darkness": Damage("image", darkness, "share of the brightness that is lost"),
    "crop": Damage("image", crop, "share of each side that is cut off"),
    "typing": Damage("text", typing_errors, "probability that a word has a typing error"),
    "ocr": Damage("text", ocr_errors, "probability that a word is misread, split or joined with the next"),
    "truncation": Damage("text", truncation, "share of the characters that is cut off at the end"),
    "units": Damage("table", unit_changes, "probability that a number or quantity is given in another unit"),
    "swapped": Damage("table", swapped_cells, "probability that a pair of cells is swapped"),
    "stale": Damage("table", stale_cells, "probability that a cell comes from another training row", from_others=True),
}
