"""Read Inside Airbnb's listings: a picture per listing, texts, and an allow-list of columns; the target is the price.

Files of today (75 columns) and of 2020 (106 columns) are read; columns of the allow-list that a file lacks are left
out. Prices in texts are removed, and columns with a price (cleaning fee, deposit, weekly price) are not on the list,
because they would reveal the target.
"""

import html
import json
import logging
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ...config.schema import AirbnbConfig
from ...errors import UserError, did_you_mean
from ..record import Cell, Record
from ..splits import split_of
from ..tabular_io import cells, raise_all, read_frame

_log = logging.getLogger(__name__)

TITLE = "Inside Airbnb listings"
SOURCE = "https://insideairbnb.com/get-the-data/"
TERMS = "CC BY 4.0; the pictures belong to the hosts and are not part of the data set"
COMMAND = "download the listings.csv.gz of a city and date from the page into the folder"

_TEXT_COLUMNS = ("name", "description", "neighborhood_overview", "host_about")
_TABLE_COLUMNS = {
    "property_type": "property type",
    "room_type": "room type",
    "accommodates": "number of guests",
    "bathrooms_text": "bathroom",
    "bathrooms": "number of bathrooms",
    "bedrooms": "number of bedrooms",
    "beds": "number of beds",
    "neighbourhood_cleansed": "neighbourhood",
    "neighbourhood_group_cleansed": "district",
    "host_is_superhost": "superhost status",
    "host_response_rate": "response rate of the host",
    "host_identity_verified": "verification of the host",
    "minimum_nights": "minimum number of nights",
    "availability_365": "number of free days in a year",
    "number_of_reviews": "number of reviews",
    "review_scores_rating": "rating",
    "review_scores_location": "rating of the location",
    "instant_bookable": "instant booking",
    "amenities": "list of amenities",
}
"""The columns of the table and their names in words, in order of importance. The long list of amenities is last,
because a description has a word budget."""
_REQUIRED_COLUMNS = ("id", "host_id", "price", "name")
_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")

_SIGN = r"(?:US\$|[$€£¥₹]|\b(?:USD|EUR|GBP|AUD|CAD|CHF|dollars?|euros?|pounds?|bucks)\b)"
_AMOUNT = r"\d+(?:[.,]\d+)*"
_MONEY = re.compile(rf"{_SIGN}\s*{_AMOUNT}|{_AMOUNT}\s*{_SIGN}", re.IGNORECASE)


def read_airbnb(config: AirbnbConfig) -> Iterator[Record]:
    """Yield the listings with a price above 0, file by file; the number of other listings is logged.

    The target is the price, a float in the city's own currency. With a test city, its listings come first and are the
    test rows; the other listings are split into train and val by host, without hosts of the test city. Raises UserError
    if there is no file or no such city, and one UserError for the problems of all rows of a file.
    """
    root = Path(config.path).expanduser()
    files = (
        [root]
        if root.is_file()
        else sorted(path for path in root.rglob("*listings*.csv*") if path.name.lower().endswith((".csv", ".csv.gz")))
    )
    if not files:
        raise UserError(
            f"{root}: no listings.csv or listings.csv.gz; data.path is a folder of {TITLE} ({SOURCE}), "
            f"{TERMS}: {COMMAND}"
        )
    if config.images is not None and not Path(config.images).expanduser().is_dir():
        raise UserError(f"data.images={config.images} does not exist; give the folder of the pictures, or null")
    pictures = _pictures(config.images)
    cities = {path: _city(path, root) for path in files}
    if config.test_city is not None:
        names = sorted(set(cities.values()))
        if config.test_city not in names or len(names) == 1:
            raise UserError(
                f"data.test_city={config.test_city}: it must be one of several cities, and {root} has "
                f"{', '.join(names)}{did_you_mean(config.test_city, names)}"
            )
        files.sort(key=lambda path: cities[path] != config.test_city)
    n_without_price, n_of_test_hosts, test_hosts = 0, 0, set()
    for path in files:
        # Different cities may share listing ids and hosts.
        prefix = "" if len(files) == 1 else f"{path.relative_to(root).as_posix().removesuffix('.gz')}:"
        for record in _listings(path, prefix, pictures):
            if record.target is None:
                n_without_price += 1
            elif config.test_city is None:
                yield record
            elif cities[path] == config.test_city:
                test_hosts.add(record.group)
                yield replace(record, split="test")
            elif record.group in test_hosts:
                n_of_test_hosts += 1
            else:
                yield replace(record, split=split_of(record, replace(config.split, test=0.0)))
    if n_without_price:
        _log.info("%d listings have no price above 0 and are left out", n_without_price)
    if n_of_test_hosts:
        _log.info("%d listings of hosts in %s are in other cities and are left out", n_of_test_hosts, config.test_city)


def _city(path: Path, root: Path) -> str:
    """Return the city of a file: its top folder below `root`, or the file's name if it is directly in `root`."""
    parts = path.relative_to(root).parts or (path.name,)
    return parts[0].removesuffix(".gz").removesuffix(".csv") if len(parts) == 1 else parts[0]


def _listings(path: Path, prefix: str, pictures: dict[str, Path]) -> list[Record]:
    """Return the listings of one file; the target is None if there is no price above 0."""
    frame = read_frame(path)
    raise_all(
        [
            f"{path}: no column {column!r}; download the detailed listings.csv.gz: {SOURCE}"
            for column in _REQUIRED_COLUMNS
            if column not in frame.columns
        ]
    )
    columns = {
        column: cells(frame, column)
        for column in (*_REQUIRED_COLUMNS, *_TEXT_COLUMNS, *_TABLE_COLUMNS)
        if column in frame.columns
    }
    problems, records, first_rows = [], [], {}
    for index in range(len(frame)):
        row = {column: values[index] for column, values in columns.items()}
        where, name = f"{path}: row {index + 1}", row["id"]
        if name is None or first_rows.setdefault(name, index + 1) != index + 1:
            problems.append(f"{where}, column 'id': {'missing' if name is None else f'{name!r} appears twice'}")
            continue
        if row["host_id"] is None:
            problems.append(f"{where}, column 'host_id': missing; rows are split by it")
        text = "\n".join(part for part in (_plain(row.get(column)) for column in _TEXT_COLUMNS) if part) or None
        if row.get("bathrooms_text"):  # it is more detailed than the number
            row["bathrooms"] = None
        table = {words: _in_words(column, row[column]) for column, words in _TABLE_COLUMNS.items() if column in row}
        price = None
        if row["price"] is not None:
            price = _price(row["price"])
            if price is None:
                problems.append(f"{where}, column 'price': {row['price']!r:.40} is not a price")
        target = price if price and price > 0 else None
        records.append(Record(prefix + name, row["host_id"] or "", pictures.get(name), text, table, target))
    raise_all(problems)
    return records


def _pictures(folder: str | None) -> dict[str, Path]:
    """Return the pictures by listing id; the folder is listed once, and no picture is opened."""
    paths = Path(folder).expanduser().iterdir() if folder else ()
    return {path.stem: path for path in sorted(paths) if path.suffix.lower() in _IMAGE_SUFFIXES}


def _price(text: str) -> float | None:
    """Return "$1,250.00" as 1250.0, for any currency sign; None if it is not a number."""
    digits = re.sub(r"[^\d.,\-]", "", text).replace(",", "")
    try:
        value = float(digits)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _plain(text: str | None) -> str | None:
    """Return the text without HTML and without amounts of money; None if nothing remains."""
    if text is None:
        return None
    unescaped = html.unescape(re.sub(r"<br\s*/?>", "\n", text, flags=re.IGNORECASE))
    return re.sub(r"[^\S\n]+", " ", _MONEY.sub(" ", re.sub(r"</?[a-zA-Z][^<>]*>", " ", unescaped))).strip() or None


def _in_words(column: str, value: str | None) -> Cell:
    """Return a cell as a person would write it; None if it is missing."""
    if value is None or value == "N/A":
        return None
    if column == "amenities":
        return _amenities(value)
    if value in ("t", "f"):
        return "yes" if value == "t" else "no"
    if re.fullmatch(r"\d+(\.\d+)?%", value):
        return f"{value[:-1]} percent"
    return re.sub(r"\.0+$", "", _plain(value) or "") or None


def _amenities(value: str) -> str | None:
    """Return the names separated by commas, from a JSON list or from the braces of older files."""
    try:
        names = json.loads(value)
    except ValueError:
        names = [quoted or bare for quoted, bare in re.findall(r'"([^"]*)"|([^",{}]+)', value)]
    names = names if isinstance(names, list) else [names]
    return ", ".join(plain for name in names if (plain := _plain(str(name)))) or None
