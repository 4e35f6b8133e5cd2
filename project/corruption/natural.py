"""Realistic damage by name: what a camera, a typist, a scanner or a data base does to one modality.

Adding one: a function f(value, level, rng) -> value beside the others of its modality, and a line here. At level 0 it
must be the identity, and what it draws must not depend on the level.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .image import blur, crop, darkness, jpeg
from .table import stale_cells, swapped_cells, unit_changes
from .text import ocr_errors, truncation, typing_errors


@dataclass(frozen=True)
class Damage:
    """`apply` damages a value of the modality at a level in [0, 1]; `unit` says what the level means. One that takes
    from other rows has those as its last argument.
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
    "units": Damage("table", unit_changes, "probability that a number or quantity is told in another unit"),
    "swapped": Damage("table", swapped_cells, "probability that a pair of cells is exchanged"),
    "stale": Damage("table", stale_cells, "probability that a cell is that of another training row", from_others=True),
}
