"""Inside Airbnb's listings: a picture by listing id, the texts, an allow-list of columns; the target is the price.

Both generations of columns are read, 75 today and 106 in 2020: of the allow-list, those that a file has. A listing's
own words about money are taken out of its texts, and columns that tell a price (cleaning fee, deposit, price of a week)
are not on the list, for they would give the target away.
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

log = logging.getLogger(__name__)

TITLE = "Inside Airbnb listings"
SOURCE = "https://insideairbnb.com/get-the-data/"
TERMS = "CC BY 4.0; the pictures are their hosts' and are not part of it"
COMMAND = "download the listings.csv.gz of a city and date from the page into the folder"

TEXTS = ("name", "description", "neighborhood_overview", "host_about")
TABLE = {
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
"""The columns of the table and what they are called in words; in order of weight, the long list of amenities last, for
a description has a budget of words."""
NEEDED = ("id", "host_id", "price", "name")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")

_SIGN = r"(?:US\$|[$€£¥₹]|\b(?:USD|EUR|GBP|AUD|CAD|CHF|dollars?|euros?|pounds?|bucks)\b)"
_AMOUNT = r"\d+(?:[.,]\d+)*"
_MONEY = re.compile(rf"{_SIGN}\s*{_AMOUNT}|{_AMOUNT}\s*{_SIGN}", re.IGNORECASE)


def read_airbnb(config: AirbnbConfig) -> Iterator[Record]:
    """The listings that have a price above 0, file by file; how many have none is logged.

    The target is the price, a float in the city's own currency. With a test city its listings come first and are the
    test rows; the others are train and val by their hosts, and a host of both sides keeps those in the test city alone.
    Raises UserError where there is no file or no such city, and one UserError for the problems of all rows of a file.
    """
    place = Path(config.path).expanduser()
    files = (
        [place]
        if place.is_file()
        else sorted(path for path in place.rglob("*listings*.csv*") if path.name.lower().endswith((".csv", ".csv.gz")))
    )
    if not files:
        raise UserError(
            f"{place}: no listings.csv or listings.csv.gz; data.path is a folder of {TITLE} ({SOURCE}), "
            f"{TERMS}: {COMMAND}"
        )
    if config.images is not None and not Path(config.images).expanduser().is_dir():
        raise UserError(f"data.images={config.images}: there is no such folder; name that of the pictures, or none")
    pictures = _pictures(config.images)
    cities = {path: _city(path, place) for path in files}
    if config.test_city is not None:
        names = sorted(set(cities.values()))
        if config.test_city not in names or len(names) == 1:
            raise UserError(
                f"data.test_city={config.test_city}: it must be one of several cities, and there is "
                f"{', '.join(names)} in {place}{did_you_mean(config.test_city, names)}"
            )
        files.sort(key=lambda path: cities[path] != config.test_city)
    without, away, tested = 0, 0, set()
    for path in files:
        # Several cities may share listing ids, and hosts.
        prefix = "" if len(files) == 1 else f"{path.relative_to(place).as_posix().removesuffix('.gz')}:"
        for record in _listings(path, prefix, pictures):
            if record.target is None:
                without += 1
            elif config.test_city is None:
                yield record
            elif cities[path] == config.test_city:
                tested.add(record.group)
                yield replace(record, split="test")
            elif record.group in tested:
                away += 1
            else:
                yield replace(record, split=split_of(record, replace(config.split, test=0.0)))
    if without:
        log.info("%d listings have no price above 0 and are left out", without)
    if away:
        log.info("%d listings elsewhere are of a host in %s and are left out", away, config.test_city)


def _city(path: Path, place: Path) -> str:
    """The city of a file: the folder below `place` that it is in, or its own name where it is in none."""
    parts = path.relative_to(place).parts or (path.name,)
    return parts[0].removesuffix(".gz").removesuffix(".csv") if len(parts) == 1 else parts[0]


def _listings(path: Path, prefix: str, pictures: dict[str, Path]) -> list[Record]:
    """The listings of one file; the target is None where there is no price."""
    frame = read_frame(path)
    raise_all(
        [
            f"{path}: no column {column!r}; take the detailed listings.csv.gz: {SOURCE}"
            for column in NEEDED
            if column not in frame.columns
        ]
    )
    columns = {column: cells(frame, column) for column in (*NEEDED, *TEXTS, *TABLE) if column in frame.columns}
    problems, records, seen = [], [], {}
    for index in range(len(frame)):
        row = {column: values[index] for column, values in columns.items()}
        where, name = f"{path}: row {index + 1}", row["id"]
        if name is None or seen.setdefault(name, index + 1) != index + 1:
            problems.append(f"{where}, column 'id': {'missing' if name is None else f'{name!r} stands there twice'}")
            continue
        if row["host_id"] is None:
            problems.append(f"{where}, column 'host_id': missing; rows are split by it")
        text = "\n".join(part for part in (_plain(row.get(column)) for column in TEXTS) if part) or None
        if row.get("bathrooms_text"):  # it says more than the number
            row["bathrooms"] = None
        table = {words: _in_words(column, row[column]) for column, words in TABLE.items() if column in row}
        price = None
        if row["price"] is not None:
            price = _price(row["price"])
            if price is None:
                problems.append(f"{where}, column 'price': {row['price']!r:.40} is no price")
        target = price if price and price > 0 else None
        records.append(Record(prefix + name, row["host_id"] or "", pictures.get(name), text, table, target))
    raise_all(problems)
    return records


def _pictures(folder: str | None) -> dict[str, Path]:
    """The pictures by listing id; the folder is listed once, and no picture is opened."""
    paths = Path(folder).expanduser().iterdir() if folder else ()
    return {path.stem: path for path in sorted(paths) if path.suffix.lower() in SUFFIXES}


def _price(words: str) -> float | None:
    """ "$1,250.00" as 1250.0, whatever the currency's sign; None where it is no number."""
    bare = re.sub(r"[^\d.,\-]", "", words).replace(",", "")
    try:
        value = float(bare)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _plain(text: str | None) -> str | None:
    """A text without HTML and without amounts of money."""
    if text is None:
        return None
    bare = html.unescape(re.sub(r"<br\s*/?>", "\n", text, flags=re.IGNORECASE))
    return re.sub(r"[^\S\n]+", " ", _MONEY.sub(" ", re.sub(r"</?[a-zA-Z][^<>]*>", " ", bare))).strip() or None


def _in_words(column: str, value: str | None) -> Cell:
    """A cell as a reader would write it; None where it is missing."""
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
    """The names with commas between them, from a JSON list or from the braces of older files."""
    try:
        names = json.loads(value)
    except ValueError:
        names = [quoted or bare for quoted, bare in re.findall(r'"([^"]*)"|([^",{}]+)', value)]
    names = names if isinstance(names, list) else [names]
    return ", ".join(plain for name in names if (plain := _plain(str(name)))) or None
