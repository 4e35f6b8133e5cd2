"""Read Avito's adverts: a picture in a zip, Russian text, a table; the target is the probability of a deal.

The 1.5 million rows are read in chunks, and pictures are read from the zip without unpacking it.
"""

import logging
import math
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from ...config.schema import AvitoConfig
from ...errors import UserError
from ..images import ZippedImage, archive
from ..record import Cell, Record
from ..tabular_io import MAX_SHOWN, MISSING_MARKS, raise_all

_log = logging.getLogger(__name__)

TITLE = "Avito demand prediction"
SOURCE = "https://www.kaggle.com/c/avito-demand-prediction"
TERMS = "the competition's rules, which must be accepted on its page; no redistribution"
COMMAND = (
    "kaggle competitions download -c avito-demand-prediction -f train.csv -p FOLDER, and -f train_jpg.zip for "
    "the pictures (50 GB)"
)

_CSV_FILES = ("train.csv", "train.csv.zip", "train.csv.gz")
_IMAGE_ARCHIVE = "train_jpg.zip"
_IMAGE_FOLDER = "data/competition_files/train_jpg/"
"""Folder of the pictures in the published zip."""
_TABLE_COLUMNS = (
    "region",
    "city",
    "parent_category_name",
    "category_name",
    "param_1",
    "param_2",
    "param_3",
    "price",
    "user_type",
)
"""Columns of the table. Left out: image_top_1, a code of another model; the activation date, a day of March 2017; and
the item number, a count."""
CHUNK = 5_000
"""Number of rows in memory at a time."""


def read_avito(config: AvitoConfig) -> Iterator[Record]:
    """Yield the adverts in the order of the file; the target is a float in [0, 1].

    Raises UserError for a missing file or column, and one UserError for the problems of all rows of a chunk.
    """
    folder = Path(config.path).expanduser()
    path = next((folder / name for name in _CSV_FILES if (folder / name).is_file()), None)
    if path is None:
        raise UserError(
            f"{folder}: no train.csv; data.path is the folder of {TITLE} ({SOURCE}), under {TERMS}: {COMMAND}"
        )
    members = _members(folder / _IMAGE_ARCHIVE) if config.images else frozenset()
    if config.images and not members:
        _log.info("%s has no pictures; the rows are read without images", folder / _IMAGE_ARCHIVE)
    first_row = 1
    try:
        with pd.read_csv(
            path, dtype=str, keep_default_na=False, na_values=MISSING_MARKS, encoding="utf-8-sig", chunksize=CHUNK
        ) as chunks:
            for chunk in chunks:
                if first_row == 1:
                    required = (
                        "item_id",
                        "user_id",
                        "title",
                        "description",
                        "image",
                        "deal_probability",
                        *_TABLE_COLUMNS,
                    )
                    raise_all(
                        [
                            f"{path}: no column {column!r}; use the published file: {SOURCE}"
                            for column in required
                            if column not in chunk.columns
                        ]
                    )
                yield from _adverts(chunk, path, first_row, folder / _IMAGE_ARCHIVE, members)
                first_row += len(chunk)
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8; download it again") from error
    except (ValueError, OSError, zipfile.BadZipFile) as error:  # pandas' parser errors are ValueErrors
        reason = " ".join(str(error).split())
        message = f"{path}: not readable from about row {first_row} on ({reason:.200}); download it again"
        raise UserError(message) from error


def _adverts(
    chunk: pd.DataFrame, path: Path, first_row: int, images: Path, members: frozenset[str]
) -> Iterator[Record]:
    """Yield the records of a chunk that starts with the row `first_row`."""
    problems = []
    for index, row in enumerate(chunk.astype(object).where(chunk.notna(), None).to_dict("records"), start=first_row):
        probability = _probability(row["deal_probability"])
        problems += [
            f"{path}: row {index}, column {column!r}: missing"
            for column in ("item_id", "user_id")
            if row[column] is None
        ]
        if probability is None:
            problems.append(
                f"{path}: row {index}, column 'deal_probability': {row['deal_probability']!r:.40} is no "
                "number in [0, 1]"
            )
        if len(problems) > MAX_SHOWN:
            break
        if problems:
            continue
        text = "\n".join(part for part in (row["title"], row["description"]) if part) or None
        table: dict[str, Cell] = {column.replace("_", " "): _in_words(row[column]) for column in _TABLE_COLUMNS}
        member = row["image"] and next(
            (name for name in (f"{_IMAGE_FOLDER}{row['image']}.jpg", f"{row['image']}.jpg") if name in members), None
        )
        yield Record(
            row["item_id"], row["user_id"], ZippedImage(images, member) if member else None, text, table, probability
        )
    raise_all(problems)


def _members(path: Path) -> frozenset[str]:
    """Return the names of the pictures in the zip; none if there is no zip. Raises UserError if it is damaged."""
    if not path.is_file():
        return frozenset()
    try:
        return frozenset(name for name in archive(path).namelist() if name.endswith(".jpg"))
    except (OSError, zipfile.BadZipFile) as error:
        message = f"{path}: incomplete or damaged zip ({error}); download it again, or set data.images=false"
        raise UserError(message) from error


def _probability(text: str | None) -> float | None:
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) and 0 <= value <= 1 else None


def _in_words(value: str | None) -> str | None:
    """Return a cell unchanged, but 400.0 as 400."""
    return value if value is None else value.removesuffix(".0")
