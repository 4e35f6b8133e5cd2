"""Read CSV, TSV, JSONL and Parquet files as data frames, with one clear line for every problem."""

import difflib
import gzip
import json
import warnings
import zlib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from ..errors import UserError

SEPARATORS = {".csv": ",", ".csv.gz": ",", ".tsv": "\t", ".tsv.gz": "\t"}
_ENDINGS = (*SEPARATORS, ".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz", ".parquet")
MAX_SHOWN = 20
"""Number of problems that an error lists; further problems are only counted."""

MISSING_MARKS = ["", "NaN", "nan"]
"""Cells of a CSV that are missing in every column. "None" and "NA" are not among them: they may be classes or texts."""
MISSING_IN_TABLE = [*MISSING_MARKS, "NA", "N/A", "n/a", "#N/A", "<NA>", "NULL", "null", "None", "-nan", "-NaN"]
"""Cells of a CSV that are missing in a table column, where they would turn numbers into words."""


def raise_all(problems: list[str]) -> None:
    """Raise one UserError with one line per problem, at most MAX_SHOWN, if there are problems."""
    more = [f"and {len(problems) - MAX_SHOWN} more problems"] if len(problems) > MAX_SHOWN else []
    if problems:
        raise UserError("\n".join(problems[:MAX_SHOWN] + more))


def suggest_column(column: str, columns: Sequence[str], advice: str = "") -> str:
    """Return how the error of a missing column ends: a similar column, else `advice` and the names of all columns."""
    by_lower = {str(name).lower(): name for name in columns}
    if close := difflib.get_close_matches(column.lower(), by_lower, n=1):
        return f"did you mean {by_lower[close[0]]!r}?"
    names = ", ".join(map(repr, columns[:MAX_SHOWN])) + (", ..." if len(columns) > MAX_SHOWN else "")
    return f"{advice}the columns are {names}"


def read_frame(
    path: Path,
    as_written: Collection[str] | None = None,
    table: Collection[str] = (),
    *,
    verbatim: bool = False,
    key: str = "data.path",
) -> pd.DataFrame:
    """Read a file as a frame with at least one row; `key` names the file in messages.

    For a CSV, numbers are recognized only in the columns `table`, so that an id of 007 stays 007. The columns
    `as_written` are read as text; None means all columns. With `verbatim`, all columns are read as text, only
    MISSING_MARKS are missing, and column names must be unique. JSONL and Parquet have their own types.
    Raises UserError if the file is missing, unreadable or empty, or has an unknown ending.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; mend {key}, which is relative to the current folder")
    ending = next((ending for ending in _ENDINGS if path.name.lower().endswith(ending)), None)
    if ending is None:
        raise UserError(f"{path}: unknown ending; {key} takes {', '.join(_ENDINGS)}")
    try:
        if path.stat().st_size == 0:
            raise UserError(f"{path}: the file is empty (0 bytes); write it again")
        if ending == ".parquet":
            frame = pd.read_parquet(path, dtype_backend="numpy_nullable")
        elif ending in SEPARATORS:
            as_written = _column_names(path, SEPARATORS[ending]) if verbatim else as_written
            frame = _read_csv(path, SEPARATORS[ending], as_written, table)
        else:
            frame = _read_jsonl(path)
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: {_encoding_problem(path)}; save the file as UTF-8") from error
    except pd.errors.EmptyDataError as error:
        raise UserError(f"{path}: the file has no header; name the columns in the first line") from error
    except (OSError, EOFError, ValueError, zlib.error, pa.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: not readable as {ending[1:]} ({reason:.200}); write it again") from error
    if frame.index.names != [None]:  # a named index of a Parquet is a column in other programs
        frame = frame.reset_index()
    if frame.empty:
        raise UserError(f"{path}: the file has no rows; add some")
    return frame


def cells(frame: pd.DataFrame, column: str) -> list:
    """Return the cells of a column as Python values; missing and blank cells are None.

    Raises ValueError with the row number, counted from 1, of the first cell that is a list, an object or bytes.
    """
    values = []
    for row, value in enumerate(frame[column].tolist(), start=1):
        try:
            values.append(cell(value))
        except ValueError as error:
            raise ValueError(row) from error
    return values


def cell(value: object) -> Any:
    """Return a cell as a Python value, None if missing or blank. Raises ValueError for lists, objects and bytes."""
    if isinstance(value, bytes) or not pd.api.types.is_scalar(value):
        raise ValueError("not a single value")
    value = value.item() if isinstance(value, np.generic) else value
    return None if pd.isna(value) or not str(value).strip() else value


def _column_names(path: Path, separator: str) -> list[str]:
    """Return the column names as in the file; pandas would rename repeated ones. Raises UserError if one repeats."""
    first_line = pd.read_csv(
        path, sep=separator, header=None, nrows=1, dtype=str, encoding="utf-8-sig", keep_default_na=False
    )
    names = [name for name in first_line.iloc[0] if name]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"{path}: the column {repeated[0]!r:.60} appears twice; rename one of them")
    return names


def _read_csv(path: Path, separator: str, as_written: Collection[str] | None, table: Collection[str]) -> pd.DataFrame:
    """Read a CSV. Raises UserError if rows have more cells than the header, and pandas' errors for unreadable files."""
    missing = dict.fromkeys(table, MISSING_IN_TABLE) | dict.fromkeys(as_written or (), MISSING_MARKS)
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            return pd.read_csv(
                path,
                sep=separator,
                encoding="utf-8-sig",
                dtype=str if as_written is None else dict.fromkeys(as_written, str),
                na_values=MISSING_IN_TABLE if as_written is None else missing,
                keep_default_na=False,
                dtype_backend="numpy_nullable",
                index_col=False,  # else surplus first cells become an index, and every column shifts
                low_memory=False,  # else the type of a column may differ between parts of a long file
            )
        except pd.errors.ParserWarning as warning:
            message = f"{path}: the rows have more cells than the header; name every column in the first line"
            raise UserError(message) from warning


def _read_jsonl(path: Path) -> pd.DataFrame:
    """Read one JSON object per line; blank lines are skipped, and a missing key is a missing cell.

    Raises UserError with the number of every line that is not a JSON object.
    """
    rows, problems = [], []
    with (gzip.open if path.suffix.lower() == ".gz" else open)(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            if not text.strip():
                continue
            try:
                row = json.loads(text)
                if "\\ud" in text.lower():
                    json.dumps(row, ensure_ascii=False).encode()  # half of a surrogate pair cannot be encoded
            except (ValueError, RecursionError) as error:
                place = f"character {error.pos + 1}: " if isinstance(error, json.JSONDecodeError) else ""
                reason = f"{place}{getattr(error, 'msg', None) or error}"
                problems.append(f"{path}: line {number} is no JSON ({reason:.100}); mend the line or delete it")
                continue
            if isinstance(row, dict):
                rows.append(row)
            else:
                problems.append(f'{path}: line {number} is no JSON object; write one {{"column": value, ...}} per line')
    raise_all(problems)
    return pd.DataFrame(rows, dtype=object)  # else a missing cell turns whole numbers into floats


def _encoding_problem(path: Path) -> str:
    """Return where the file is not UTF-8, and which encoding it may have."""
    with (gzip.open if path.suffix.lower() == ".gz" else open)(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if number == 1 and line.startswith((b"\xff\xfe", b"\xfe\xff")):
                return "not UTF-8 but UTF-16, by its first bytes"
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                return f"not UTF-8, but maybe Latin-1, by the byte 0x{line[error.start]:02x} in line {number}"
    return "not UTF-8"
