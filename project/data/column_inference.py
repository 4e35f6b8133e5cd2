"""What the columns of a table hold: cells in words, targets, and the role of each column where none is given."""

import math
import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Literal

import numpy as np

from ..config.schema import TableConfig
from .tabular_io import cells, read_frame

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
MOST_CLASSES = 20
"""A column of numbers with more distinct values is taken for a number, unless the task is given."""
TEXT_WORDS = 3
"""Average number of words from which a column of mostly distinct values is taken for text."""
LOOKED_AT = 1000
"""How many cells are looked at for images in the folder, and for web addresses."""

_NUMBER = re.compile(r"\s*[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?\s*")
_WHOLE = re.compile(r"\s*-?[0-9]+(\.0+)?\s*")
_INTEGER = re.compile(r"\s*[-+]?[0-9]+\s*")
_ID_NAME = re.compile(r"(^|[\W_])(id|ID|Id)$|[a-z]I[dD]$|^(?i:index|unnamed: \d+)$")
_ROLES = {
    "empty": "not used: always missing",
    "nested": "not used: holds lists or objects",
    "constant": "not used: always the same",
    "id": "not used: names the row",
    "address": "not used: web addresses",
    "image": "not used: a second image",
}


def task_of(values: list, task: str) -> str:
    """class, ordinal or number. For auto, a number is what has a fraction anywhere, or many distinct values."""
    numbers = [number(value) for value in values if value is not None]
    if task != "auto":
        return task
    if not numbers or None in numbers:
        return "class"
    return "number" if len(set(numbers)) > MOST_CLASSES or not all(map(float.is_integer, numbers)) else "class"


def as_targets(values: list, task: str) -> list[str | float | None]:
    """The cells of the target; None where a cell is missing or does not fit the task.

    A class is a name as written, but 3.0 is the class 3 where all classes are whole numbers: programs that once saw an
    empty cell in a column of whole numbers write it so. An ordinal class is a whole number.
    """
    if task == "number":
        return [number(value) for value in values]
    words = as_written(values)
    whole = [word is not None and bool(_WHOLE.fullmatch(word)) for word in words]
    if task == "ordinal":
        return [str(int(word.split(".")[0])) if fits else None for word, fits in zip(words, whole, strict=True)]
    if all(fits for word, fits in zip(words, whole, strict=True) if word is not None):
        return [None if word is None else word.strip().split(".")[0] for word in words]
    return words


def number(value: object) -> float | None:
    """The finite number of a cell, written in digits with a decimal point; None for anything else."""
    if isinstance(value, bool) or (isinstance(value, str) and not _NUMBER.fullmatch(value)):
        return None
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def as_written(values: list) -> list[str | None]:
    """The cells of a column as text; None stays None."""
    return [None if value is None else str(value) for value in values]


def in_words(values: list) -> list[str | None]:
    """The cells of a table column as a reader would write them; None stays None."""
    whole = _whole(values)
    return [_word(value, whole) for value in values]


@dataclass(frozen=True)
class Wording:
    """How the cells of a column were read and worded, so that a single further cell is worded as it would have been
    among them, whatever stands beside it.

    `kind` is what all known cells are; `floats` says that none of a number's is an int, `whole` that none has a
    fraction. The words of `missing` mean that nothing is there.
    """

    kind: Literal["truth", "number", "other"] = "other"
    floats: bool = False
    whole: bool = True
    missing: frozenset[str] = frozenset()

    def word(self, value: object) -> str | None:
        """A cell in words: a value as `cell` gives it, or as it is written in a CSV."""
        if isinstance(value, str):
            if value in self.missing:
                return None
            if self.kind == "truth" and value.lower() in ("true", "false"):
                value = value.lower() == "true"
            elif self.kind == "number" and _NUMBER.fullmatch(value):
                value = float(value) if self.floats or not _INTEGER.fullmatch(value) else int(value)
        if self.floats and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        return _word(value, self.whole)


def wording_of(values: list, missing: Collection[str] = ()) -> Wording:
    """The wording of a column with these cells."""
    known = [value for value in values if value is not None]
    truths = {isinstance(value, bool) for value in known}
    numbers = all(isinstance(value, int | float) for value in known)
    kind = "other" if not known or not numbers or len(truths) > 1 else "truth" if truths == {True} else "number"
    return Wording(
        kind, kind == "number" and all(isinstance(value, float) for value in known), _whole(values), frozenset(missing)
    )


def _whole(values: list) -> bool:
    # Beyond 2**53 a float no longer tells one whole number from the next.
    return all(value.is_integer() and abs(value) < 2**53 for value in values if isinstance(value, float))


def _word(value: object, whole: bool) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        # A further cell may have a fraction where no earlier one has.
        return str(int(value)) if whole and value.is_integer() and abs(value) < 2**53 else _six_digits(value)
    if isinstance(value, datetime):
        return str(value).removesuffix(" 00:00:00")
    return str(value)


def _six_digits(value: float) -> str:
    """A float with up to 6 significant digits, without an exponent unless it is huge or tiny."""
    if 1e-6 <= abs(value) < 1e15:
        return np.format_float_positional(value, precision=6, fractional=False, trim="-")
    return f"{value:.6g}"


def infer_columns(config: TableConfig) -> TableConfig:
    """The configuration with a role for each column, where it names no image, text and table; else as it is.

    Image: the first column whose cells mostly end like an image file and are there. Text: mostly distinct values of
    several words. Table: the rest, without what names a row, is a web address, or is always the same.
    Raises UserError where the file cannot be read.
    """
    if config.image or config.text or config.table:
        return config
    guesses = _guesses(config)
    columns = {
        role: [name for name, (guess, _) in guesses.items() if guess == role] for role in ("image", "text", "table")
    }
    return replace(config, image=next(iter(columns["image"]), None), text=columns["text"], table=columns["table"])


def column_roles(config: TableConfig) -> str:
    """Column by column, a line each: role, type, share of missing cells, and an example.

    Raises UserError where the file cannot be read.
    """
    complete, guesses = infer_columns(config), _guesses(config, all_columns=True)
    given = {
        complete.target: "target",
        complete.id: "id",
        complete.group: "group",
        complete.image: "image",
        **dict.fromkeys(complete.text, "text"),
        **dict.fromkeys(complete.table, "table"),
    }
    lines = [("column", "role", "type", "missing", "example")]
    for name, (guess, values) in guesses.items():
        unused = _ROLES.get(guess, "not used") if complete is not config else "not used"
        example = next((str(value) for value in values if value is not None), "")
        shown = printable(example)
        missing = values.count(None) / len(values) if values else 0
        lines.append(
            (
                name,
                given.get(name, unused),
                _type(values, guess),
                f"{missing:.0%}",
                shown if len(shown) <= 40 else f"{shown[:37]}...",
            )
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def printable(text: str) -> str:
    """The text on one line, without what could steer a terminal."""
    return "".join(char if char.isprintable() else " " for char in text)


def _guesses(config: TableConfig, all_columns: bool = False) -> dict[str, tuple[str, list]]:
    """What each column looks like, with its cells: image, text, table, or a key of _ROLES.

    Without `all_columns`, the columns that the configuration names are left out.
    """
    path = Path(config.path).expanduser()
    frame = read_frame(path)
    named = () if all_columns else (config.target, config.id, config.group)
    guesses = {}
    for column in frame.columns:
        if column not in named:
            try:
                values = cells(frame, column)
                guesses[str(column)] = _guess(str(column), values, path.parent), values
            except ValueError:
                guesses[str(column)] = "nested", []
    return guesses


def _guess(name: str, values: list, folder: Path) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "empty"
    words = [value.split() for value in known if isinstance(value, str)]
    numbers = [number(value) for value in known]
    if len(set(known)) == 1 and len(known) == len(values) > 1:
        return "constant"
    distinct = len(set(known)) == len(known) > 2  # two are yes and no as likely as names
    if None not in numbers:
        return "id" if distinct and _ID_NAME.search(name) and all(map(float.is_integer, numbers)) else "table"
    if len(words) < len(known):
        return "table"
    looked = known[:LOOKED_AT]
    if sum(_is_image(folder, value) for value in looked) > len(looked) / 2:
        return "image"
    if sum(value.startswith(("http://", "https://")) for value in looked) > len(looked) / 2:
        return "address"
    if distinct and all(len(cell) == 1 for cell in words):
        return "id"
    several = sum(map(len, words)) >= TEXT_WORDS * len(words)
    return "text" if several and len(set(known)) > len(known) / 2 else "table"


def _is_image(folder: Path, cell: str) -> bool:
    path = Path(cell)
    if not cell.lower().endswith(IMAGE_SUFFIXES) or path.is_absolute() or ".." in path.parts:
        return False
    try:
        return (folder / path).is_file()
    except (OSError, ValueError):  # too long, or a NUL byte
        return False


def _type(values: list, guess: str) -> str:
    """The type of a column's cells, in words."""
    known = [value for value in values if value is not None]
    numbers = [number(value) for value in known]
    if guess in ("empty", "nested"):
        return guess
    if None not in numbers:
        return "whole number" if all(map(float.is_integer, numbers)) else "number"
    if guess == "image":
        return "image file"
    if all(isinstance(value, bool) for value in known):
        return "truth value"
    return "text" if all(isinstance(value, str) for value in known) else type(known[0]).__name__.lower()
