"""Interpret the columns of a table: cells as words, targets, and roles that the configuration does not name."""

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

_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
_MAX_NUMBER_CLASSES = 20
"""A target of numbers with more distinct values is a number, unless the configuration names the task."""
_MIN_TEXT_WORDS = 3
"""Average number of words from which a column of mostly distinct values is text."""
_MAX_PROBED_CELLS = 1000
"""Number of cells that are tested for image files and for web addresses."""

_NUMBER = re.compile(r"\s*[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?\s*")
_WHOLE = re.compile(r"\s*-?[0-9]+(\.0+)?\s*")
_INTEGER = re.compile(r"\s*[-+]?[0-9]+\s*")
_ID_NAME = re.compile(r"(^|[\W_])(id|ID|Id)$|[a-z]I[dD]$|^(?i:index|unnamed: \d+)$")
_ROLES = {
    "empty": "not used: always missing",
    "nested": "not used: holds lists or objects",
    "constant": "not used: always the same",
    "id": "not used: row id",
    "address": "not used: web addresses",
    "image": "not used: a second image",
}


def infer_task(values: list, task: str) -> str:
    """Return class, ordinal or number; `auto` is number if any value has a fraction or there are many distinct ones."""
    numbers = [finite_number(value) for value in values if value is not None]
    if task != "auto":
        return task
    if not numbers or None in numbers:
        return "class"
    has_fraction = not all(map(float.is_integer, numbers))
    return "number" if has_fraction or len(set(numbers)) > _MAX_NUMBER_CLASSES else "class"


def as_targets(values: list, task: str) -> list[str | float | None]:
    """Return the cells of the target; None if a cell is missing or does not fit the task.

    A class is its name as written. If all classes are whole numbers, 3.0 is the class 3: programs write whole numbers
    so if their column had an empty cell. An ordinal class is a whole number.
    """
    if task == "number":
        return [finite_number(value) for value in values]
    words = as_strings(values)
    is_integer = [word is not None and bool(_WHOLE.fullmatch(word)) for word in words]
    if task == "ordinal":
        return [str(int(word.split(".")[0])) if fits else None for word, fits in zip(words, is_integer, strict=True)]
    if all(fits for word, fits in zip(words, is_integer, strict=True) if word is not None):
        return [None if word is None else word.strip().split(".")[0] for word in words]
    return words


def finite_number(value: object) -> float | None:
    """Return the finite number in a cell, in digits with a decimal point; None for any other cell."""
    if isinstance(value, bool) or (isinstance(value, str) and not _NUMBER.fullmatch(value)):
        return None
    try:
        result = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return result if math.isfinite(result) else None


def as_strings(values: list) -> list[str | None]:
    """Return the cells of a column as text; None stays None."""
    return [None if value is None else str(value) for value in values]


def in_words(values: list) -> list[str | None]:
    """Return the cells of a table column as a person would write them; None stays None."""
    whole = _all_integers(values)
    return [_word(value, whole) for value in values]


@dataclass(frozen=True)
class Wording:
    """How a column was read, so that a later cell is put into the same words as in that column.

    `kind` is the type of all known cells. For numbers, `floats` means that all are floats, and `whole` that none has a
    fraction. `missing` are the words of a missing cell.
    """

    kind: Literal["truth", "number", "other"] = "other"
    floats: bool = False
    whole: bool = True
    missing: frozenset[str] = frozenset()

    def word(self, value: object) -> str | None:
        """Return a cell in words; `value` is a result of `cell`, or the text in a CSV."""
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
    """Return the wording of a column with these cells."""
    known = [value for value in values if value is not None]
    are_bools = {isinstance(value, bool) for value in known}
    are_numbers = all(isinstance(value, int | float) for value in known)
    if not known or not are_numbers or len(are_bools) > 1:
        kind = "other"
    else:
        kind = "truth" if are_bools == {True} else "number"
    floats = kind == "number" and all(isinstance(value, float) for value in known)
    return Wording(kind, floats, _all_integers(values), frozenset(missing))


def _all_integers(values: list) -> bool:
    # From 2**53 on, a float cannot represent every whole number.
    return all(value.is_integer() and abs(value) < 2**53 for value in values if isinstance(value, float))


def _word(value: object, whole: bool) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        # A later cell may have a fraction although no cell of the column has one.
        return str(int(value)) if whole and value.is_integer() and abs(value) < 2**53 else _six_digits(value)
    if isinstance(value, datetime):
        return str(value).removesuffix(" 00:00:00")
    return str(value)


def _six_digits(value: float) -> str:
    """Return a float with up to 6 significant digits; only huge and tiny numbers have an exponent."""
    if 1e-6 <= abs(value) < 1e15:
        return np.format_float_positional(value, precision=6, fractional=False, trim="-")
    return f"{value:.6g}"


def infer_columns(config: TableConfig) -> TableConfig:
    """Return the configuration with inferred image, text and table columns; unchanged if it names any of them.

    Image: the first column of which most cells name an existing image file. Text: mostly distinct values of several
    words. Table: all other columns, except row ids, web addresses and constants. Raises UserError if the file cannot be
    read.
    """
    if config.image or config.text or config.table:
        return config
    guesses = _guesses(config)
    columns = {
        role: [name for name, (guess, _) in guesses.items() if guess == role] for role in ("image", "text", "table")
    }
    return replace(config, image=next(iter(columns["image"]), None), text=columns["text"], table=columns["table"])


def column_roles(config: TableConfig) -> str:
    """Return a table with one line per column: role, type, share of missing cells, and an example.

    Raises UserError if the file cannot be read.
    """
    complete, guesses = infer_columns(config), _guesses(config, all_columns=True)
    roles = {
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
        example = printable(next((str(value) for value in values if value is not None), ""))
        missing = values.count(None) / len(values) if values else 0
        lines.append(
            (
                name,
                roles.get(name, unused),
                _type(values, guess),
                f"{missing:.0%}",
                example if len(example) <= 40 else f"{example[:37]}...",
            )
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def printable(text: str) -> str:
    """Return the text on one line, without terminal control characters."""
    return "".join(char if char.isprintable() else " " for char in text)


def _guesses(config: TableConfig, all_columns: bool = False) -> dict[str, tuple[str, list]]:
    """Return the guessed role of each column (image, text, table, or a key of _ROLES) and its cells.

    Without `all_columns`, target, id and group are skipped.
    """
    path = Path(config.path).expanduser()
    frame = read_frame(path)
    skipped = () if all_columns else (config.target, config.id, config.group)
    guesses = {}
    for column in frame.columns:
        if column not in skipped:
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
    numbers = [finite_number(value) for value in known]
    if len(set(known)) == 1 and len(known) == len(values) > 1:
        return "constant"
    distinct = len(set(known)) == len(known) > 2  # two distinct values may also be yes and no
    if None not in numbers:
        return "id" if distinct and _ID_NAME.search(name) and all(map(float.is_integer, numbers)) else "table"
    if len(words) < len(known):
        return "table"
    probed = known[:_MAX_PROBED_CELLS]
    if sum(_is_image(folder, value) for value in probed) > len(probed) / 2:
        return "image"
    if sum(value.startswith(("http://", "https://")) for value in probed) > len(probed) / 2:
        return "address"
    if distinct and all(len(cell) == 1 for cell in words):
        return "id"
    has_several_words = sum(map(len, words)) >= _MIN_TEXT_WORDS * len(words)
    return "text" if has_several_words and len(set(known)) > len(known) / 2 else "table"


def _is_image(folder: Path, cell: str) -> bool:
    path = Path(cell)
    if not cell.lower().endswith(_IMAGE_SUFFIXES) or path.is_absolute() or ".." in path.parts:
        return False
    try:
        return (folder / path).is_file()
    except (OSError, ValueError):  # too long, or a NUL byte
        return False


def _type(values: list, guess: str) -> str:
    """Return the type of a column's cells in words."""
    known = [value for value in values if value is not None]
    numbers = [finite_number(value) for value in known]
    if guess in ("empty", "nested"):
        return guess
    if None not in numbers:
        return "whole number" if all(map(float.is_integer, numbers)) else "number"
    if guess == "image":
        return "image file"
    if all(isinstance(value, bool) for value in known):
        return "truth value"
    return "text" if all(isinstance(value, str) for value in known) else type(known[0]).__name__.lower()
