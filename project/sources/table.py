"""Any CSV, TSV or Parquet as Records: a few lines of configuration say which column is what.

All rows are checked before the first is used, so that every problem is seen at once and before anything is spent.
"""

import difflib
import gzip
import re
import warnings
import zlib
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from PIL import Image

from ..errors import UserError
from ..record import Record
from ..schema import TableData

SEPARATORS = {".csv": ",", ".csv.gz": ",", ".tsv": "\t", ".tsv.gz": "\t"}
SHOWN = 20
"""How many problems an error shows before it only counts them."""

MISSING = ["", "NaN", "nan"]
"""Cells of a CSV that are missing in any column; "None" or "NA" may be the name of a class, or a text."""
MISSING_IN_TABLE = [*MISSING, "NA", "N/A", "n/a", "#N/A", "<NA>", "NULL", "null", "None", "-nan", "-NaN"]
"""Cells of a CSV that are missing in a table column, where they would turn a column of numbers into words."""


def read_table(config: TableData) -> list[Record]:
    """The rows of `config.path` as Records, in the order of the file.

    An empty cell is a missing value, not a mistake: it is left out of the record's table, and a record without text
    or image has None there. Rows are numbered from 1, the header not counted. Raises UserError for a file that cannot
    be read, and one UserError that lists all problems of the columns and rows, with the mend of each.
    """
    path = Path(config.path).expanduser()
    frame = _read_frame(path, config)
    problems = _column_problems(config, path, list(frame.columns))
    cells = {}
    for column in dict.fromkeys(column for _, column in _columns(config) if column in frame.columns):
        values = frame[column].tolist()
        if all(pd.api.types.is_scalar(value) and not isinstance(value, bytes) for value in values):
            cells[column] = [None if pd.isna(value) or not str(value).strip() else value for value in values]
        else:
            problems.append(f"{path}: column {column!r} holds lists or bytes; write one text, number or path in a cell")

    blank = [None] * len(frame)
    ids = _as_written(cells[config.id]) if config.id in cells else [str(row) for row in range(1, len(frame) + 1)]
    groups = _as_written(cells[config.group]) if config.group in cells else ids
    images = _as_written(cells.get(config.image, blank))
    texts = [_as_written(cells[column]) for column in config.text if column in cells]
    table = {column: _in_words(cells[column]) for column in config.table if column in cells}
    targets = _as_classes(cells.get(config.target, blank))
    classes = {target for target in targets if target is not None}
    if len(classes) == 1:
        problems.append(
            f"{path}: column {config.target!r}: the target is always {min(classes)!r:.60}; "
            "name another column under data.target, or add rows of other classes"
        )
    inputs = [column for key, column in _columns(config) if key in ("image", "text", "table")]
    all_read = bool(inputs) and all(column in cells for column in inputs)

    folder = path.parent.resolve()
    records, first_row = [], {}
    for index in range(len(frame)):
        where = f"{path}: row {index + 1}"
        name, group = ids[index], groups[index]
        if name is None:
            problems.append(f"{where}, column {config.id!r}: no id; write one, or leave data.id out to number the rows")
        elif first_row.setdefault(name, index + 1) != index + 1:
            problems.append(
                f"{where}, column {config.id!r}: {name!r:.60} is already the id of row {first_row[name]}; "
                "make it unique, or leave data.id out to number the rows"
            )
        if group is None and config.group in cells:
            problems.append(f"{where}, column {config.group!r}: no group; write one, such as a name of its own")
        if targets[index] is None and config.target in cells:
            problems.append(f"{where}, column {config.target!r}: no target; write the class, or drop the row")
        text = "\n".join(column[index] for column in texts if column[index] is not None) or None
        values = {column: words[index] for column, words in table.items() if words[index] is not None} or None
        image = None
        if images[index] is not None:
            try:
                image = _checked_image(folder, images[index])
            except UserError as error:
                problems.append(f"{where}, column {config.image!r}: {error}")
        elif all_read and text is None and values is None:
            problems.append(f"{where}: nothing in any input column; fill one of {', '.join(inputs)}, or drop the row")
        records.append(Record(name or "", group or "", image, text, values, targets[index]))

    if problems:
        more = [f"and {len(problems) - SHOWN} more problems"] if len(problems) > SHOWN else []
        raise UserError("\n".join(problems[:SHOWN] + more))
    return records


def _columns(config: TableData) -> list[tuple[str, str]]:
    """The columns that the configuration names, each with the key under `data` that names it."""
    single = [(key, getattr(config, key)) for key in ("target", "id", "group", "image")]
    several = [(key, column) for key in ("text", "table") for column in getattr(config, key)]
    return [(key, column) for key, column in single if column is not None] + several


def _read_frame(path: Path, config: TableData) -> pd.DataFrame:
    """The file as a frame. Raises UserError if it is missing, unreadable or empty, or has an unknown ending."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; mend data.path, which is relative to the current folder")
    ending = next((ending for ending in (*SEPARATORS, ".parquet") if path.name.lower().endswith(ending)), None)
    if ending is None:
        raise UserError(f"{path}: unknown ending; data.path takes {', '.join(SEPARATORS)} and .parquet")
    try:
        if path.stat().st_size == 0:
            raise UserError(f"{path}: the file is empty (0 bytes); write it again")
        if ending == ".parquet":
            frame = pd.read_parquet(path, dtype_backend="numpy_nullable")
        else:
            frame = _read_csv(path, ending, config)
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: {_undecodable(path)}; save the file as UTF-8") from error
    except pd.errors.EmptyDataError as error:
        raise UserError(f"{path}: the file has no header; the first line names the columns") from error
    except (OSError, EOFError, ValueError, zlib.error, pa.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: not readable as {ending[1:]} ({reason:.200}); write it again") from error
    if frame.index.names != [None]:  # an index that pandas wrote into a Parquet is a column to everyone else
        frame = frame.reset_index()
    if frame.empty:
        raise UserError(f"{path}: the file has no rows; add some")
    return frame


def _read_csv(path: Path, ending: str, config: TableData) -> pd.DataFrame:
    """The file as a frame; numbers are recognised in table columns alone, so that an id of 007 stays 007.

    Raises UserError if rows have more cells than the header, and whatever pandas raises for an unreadable file.
    """
    as_written = {column for key, column in _columns(config) if key != "table"}
    missing = dict.fromkeys(config.table, MISSING_IN_TABLE) | dict.fromkeys(as_written, MISSING)
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            return pd.read_csv(
                path,
                sep=SEPARATORS[ending],
                encoding="utf-8-sig",
                dtype=dict.fromkeys(as_written, str),
                na_values=missing,
                keep_default_na=False,
                dtype_backend="numpy_nullable",
                index_col=False,  # else surplus leading cells become an index and every column shifts
                low_memory=False,  # else a column's type may differ between parts of a long file
            )
        except pd.errors.ParserWarning as warning:
            message = f"{path}: the rows have more cells than the header; name every column in the first line"
            raise UserError(message) from warning


def _undecodable(path: Path) -> str:
    """Where the file stops being UTF-8, and what it may be instead."""
    with (gzip.open if path.suffix.lower() == ".gz" else open)(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if number == 1 and line.startswith((b"\xff\xfe", b"\xfe\xff")):
                return "not UTF-8 but UTF-16, by its first bytes"
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                return f"not UTF-8, but maybe Latin-1, by the byte 0x{line[error.start]:02x} in line {number}"
    return "not UTF-8"


def _column_problems(config: TableData, path: Path, columns: list[str]) -> list[str]:
    """What is wrong with the columns that the configuration names."""
    problems = []
    named = _columns(config)
    by_lower = {column.lower(): column for column in columns}
    for key, column in named:
        if column not in columns:
            close = difflib.get_close_matches(column.lower(), by_lower, n=1)
            listed = ", ".join(map(repr, columns[:SHOWN])) + (", ..." if len(columns) > SHOWN else "")
            mend = f"did you mean {by_lower[close[0]]!r}?" if close else f"the columns are {listed}"
            problems.append(f"{path}: no column {column!r}, which data.{key} names; {mend}")
    inputs = [(key, column) for key, column in named if key in ("image", "text", "table")]
    if not inputs:
        problems.append(f"{path}: nothing to predict from; name a column under data.image, data.text or data.table")
    for key, column in inputs:
        if column == config.target:
            problems.append(f"{path}: column {column!r} is the target and an input; take it out of data.{key}")
    return problems


def _as_written(values: list) -> list[str | None]:
    """The cells of a column as text; None stays None."""
    return [None if value is None else str(value) for value in values]


def _as_classes(values: list) -> list[str | None]:
    """The cells of the target as class names: as written, but 3.0 is the class 3 where all classes are whole numbers.

    A column of whole numbers is written as 3.0 by programs that once saw an empty cell in it.
    """
    words = _as_written(values)
    if all(re.fullmatch(r"-?[0-9]+(\.0+)?", word) for word in words if word is not None):
        return [None if word is None else word.split(".")[0] for word in words]
    return words


def _in_words(values: list) -> list[str | None]:
    """The cells of a table column as a reader would write them; None stays None."""
    # Beyond 2**53 a float no longer tells one whole number from the next.
    whole = all(value.is_integer() and abs(value) < 2**53 for value in values if isinstance(value, float))

    def word(value) -> str | None:
        if value is None:
            return None
        if isinstance(value, bool):
            return "yes" if value else "no"
        if isinstance(value, float):
            return str(int(value)) if whole else _six_digits(value)
        if isinstance(value, datetime):
            return str(value).removesuffix(" 00:00:00")
        return str(value)

    return [word(value) for value in values]


def _six_digits(value: float) -> str:
    """A float with up to 6 significant digits, without an exponent unless it is huge or tiny."""
    if 1e-6 <= abs(value) < 1e15:
        return np.format_float_positional(value, precision=6, fractional=False, trim="-")
    return f"{value:.6g}"


def _checked_image(folder: Path, cell: str) -> Path:
    """The resolved path of an image in the folder. Raises UserError if it is elsewhere, missing or not decodable."""
    shown = f"{cell!r:.100}"
    if Path(cell).is_absolute():
        raise UserError(f"the image path {shown} is absolute; write it relative to {folder}")
    try:
        path = (folder / cell).resolve()
        found = path.is_file()
    except (OSError, ValueError, RuntimeError) as error:  # too long, a NUL byte, a circle of links
        raise UserError(f"the image path {shown} is not a usable path; mend it or empty the cell") from error
    if not path.is_relative_to(folder):
        raise UserError(f"the image path {shown} leads out of {folder}; move the image there, not a link to it")
    if not found:
        raise UserError(f"no image {shown} in {folder}; mend the path or empty the cell")
    try:
        with Image.open(path) as image:
            image.verify()
        with Image.open(path) as image:  # verify leaves an image that cannot be decoded
            image.convert("RGB")
    except Exception as error:  # Pillow's readers raise exceptions of many kinds on damaged files
        raise UserError(f"the image {shown} is damaged or no image; replace it or empty the cell") from error
    return path
