"""CSV, TSV, JSONL and Parquet files as data frames; what cannot be read is one clear line each."""

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
ENDINGS = (*SEPARATORS, ".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz", ".parquet")
MAX_SHOWN = 20
"""How many problems an error shows before it only counts them."""

MISSING_MARKS = ["", "NaN", "nan"]
"""Cells of a CSV that are missing in any column; "None" or "NA" may be the name of a class, or a text."""
MISSING_IN_TABLE = [*MISSING_MARKS, "NA", "N/A", "n/a", "#N/A", "<NA>", "NULL", "null", "None", "-nan", "-NaN"]
"""Cells of a CSV that are missing in a table column, where they would turn a column of numbers into words."""


def raise_all(problems: list[str]) -> None:
    """Raise one UserError with the problems, a line each, where there are any; no more than MAX_SHOWN are shown."""
    more = [f"and {len(problems) - MAX_SHOWN} more problems"] if len(problems) > MAX_SHOWN else []
    if problems:
        raise UserError("\n".join(problems[:MAX_SHOWN] + more))


def nearest(column: str, columns: Sequence[str], otherwise: str = "") -> str:
    """How an error goes on of a column that is not there: what may have been meant, else `otherwise` and all names."""
    by_lower = {str(name).lower(): name for name in columns}
    if close := difflib.get_close_matches(column.lower(), by_lower, n=1):
        return f"did you mean {by_lower[close[0]]!r}?"
    listed = ", ".join(map(repr, columns[:MAX_SHOWN])) + (", ..." if len(columns) > MAX_SHOWN else "")
    return f"{otherwise}the columns are {listed}"


def read_frame(
    path: Path,
    as_written: Collection[str] | None = None,
    table: Collection[str] = (),
    *,
    verbatim: bool = False,
    key: str = "data.path",
) -> pd.DataFrame:
    """The file that `key` names as a frame, with at least one row.

    Numbers of a CSV are recognised in the columns `table` alone, so that an id of 007 stays 007. The columns
    `as_written`, of a CSV, are read as text; None reads all columns so. With `verbatim` all are, only what is missing
    anywhere is missing, and no two may have one name. JSONL and Parquet have types of their own.
    Raises UserError if the file is missing, unreadable or empty, or has an unknown ending.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; mend {key}, which is relative to the current folder")
    ending = next((ending for ending in ENDINGS if path.name.lower().endswith(ending)), None)
    if ending is None:
        raise UserError(f"{path}: unknown ending; {key} takes {', '.join(ENDINGS)}")
    try:
        if path.stat().st_size == 0:
            raise UserError(f"{path}: the file is empty (0 bytes); write it again")
        if ending == ".parquet":
            frame = pd.read_parquet(path, dtype_backend="numpy_nullable")
        elif ending in SEPARATORS:
            as_written = _header(path, SEPARATORS[ending]) if verbatim else as_written
            frame = _read_csv(path, SEPARATORS[ending], as_written, table)
        else:
            frame = _read_jsonl(path)
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


def cells(frame: pd.DataFrame, column: str) -> list:
    """The cells of a column as Python values; what is missing or blank is None.

    Raises ValueError, with the first such row, counted from 1, where one holds a list, an object or bytes.
    """
    found = []
    for row, value in enumerate(frame[column].tolist(), start=1):
        try:
            found.append(cell(value))
        except ValueError as error:
            raise ValueError(row) from error
    return found


def cell(value: object) -> Any:
    """A single cell as a Python value, None where it is missing or blank. Raises ValueError for lists and the like."""
    if isinstance(value, bytes) or not pd.api.types.is_scalar(value):
        raise ValueError("no single value")
    value = value.item() if isinstance(value, np.generic) else value
    return None if pd.isna(value) or not str(value).strip() else value


def _header(path: Path, separator: str) -> list[str]:
    """The names of the columns, which pandas would change where one stands twice. Raises UserError where one does."""
    first = pd.read_csv(
        path, sep=separator, header=None, nrows=1, dtype=str, encoding="utf-8-sig", keep_default_na=False
    )
    names = [name for name in first.iloc[0] if name]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"{path}: the column {twice[0]!r:.60} stands twice; rename one of them")
    return names


def _read_csv(path: Path, separator: str, as_written: Collection[str] | None, table: Collection[str]) -> pd.DataFrame:
    """Raises UserError if rows have more cells than the header, and whatever pandas raises for an unreadable file."""
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
                index_col=False,  # else surplus leading cells become an index and every column shifts
                low_memory=False,  # else a column's type may differ between parts of a long file
            )
        except pd.errors.ParserWarning as warning:
            message = f"{path}: the rows have more cells than the header; name every column in the first line"
            raise UserError(message) from warning


def _read_jsonl(path: Path) -> pd.DataFrame:
    """One JSON object a line; blank lines are passed over, and a key that a line lacks is a missing cell.

    Raises UserError, with the number of each line that is no object.
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
                    json.dumps(row, ensure_ascii=False).encode()  # half of a surrogate pair is no text
            except (ValueError, RecursionError) as error:
                place = f"character {error.pos + 1}: " if isinstance(error, json.JSONDecodeError) else ""
                reason = f"{place}{getattr(error, 'msg', None) or error}"
                problems.append(f"{path}: line {number} is no JSON ({reason:.100}); mend the line or drop it")
                continue
            if isinstance(row, dict):
                rows.append(row)
            else:
                problems.append(f'{path}: line {number} is no JSON object; write one {{"column": value, ...}} a line')
    raise_all(problems)
    return pd.DataFrame(rows, dtype=object)  # else a missing cell makes floats of whole numbers


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
