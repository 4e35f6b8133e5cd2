"""Tables for models of numbers: which column holds numbers, which categories, and which words, by the training rows."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.special import ndtri

from ..data.record import Cell, Record

CATEGORIES = 250
"""Categories of a column that are told apart at most, the most frequent ones; scikit-learn's trees take 255."""
KNOTS = 1000
"""Values of a column of numbers at most that its distribution is kept by."""
MISSING, UNKNOWN = 0, 1
"""The codes of no category, and of one that fewer than two training rows have; the known ones follow."""

_MONTHS = {"year": 12, "month": 1, "week": 7 * 12 / 365.25, "day": 12 / 365.25}
_SPAN = re.compile(rf"(\d+) ({'|'.join(_MONTHS)})s?")
_SPANS = re.compile(rf"{_SPAN.pattern}(?: and {_SPAN.pattern})*")
_QUANTITY = re.compile(r"([-+]?)[$€£¥₹]?(\d{1,3}(?:,\d{3})+|\d+)(\.\d+)?(?: ?%|(?: [^\W\d]+){1,3})?")


def parse_number(cell: Cell) -> float | None:
    """The number that a cell tells, or None: 4, "$1,250.00", "50 ringgit", "95 percent"; "2 years and 1 month" as 25.

    A date, a code with letters or a longer text tells none.
    """
    if cell is None or isinstance(cell, int | float):
        return None if cell is None or not math.isfinite(cell) else float(cell)
    text = cell.strip().lower()
    if _SPANS.fullmatch(text):
        return float(sum(int(count) * _MONTHS[unit] for count, unit in _SPAN.findall(text)))
    if match := _QUANTITY.fullmatch(text):
        sign, whole, fraction = match.groups()
        return float(sign + whole.replace(",", "") + (fraction or ""))
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


@dataclass(frozen=True)
class Columns:
    """What the columns of the training rows hold; plain values, which JSON keeps.

    `numbers` gives a column's values and their normal scores, both rising; `categories` the known ones. A column may
    be in both: "free" among prices. `words` are the columns most cells of which one row alone has: they are read as
    text.
    """

    numbers: dict[str, tuple[list[float], list[float]]] = field(default_factory=dict)
    categories: dict[str, list[str]] = field(default_factory=dict)
    words: list[str] = field(default_factory=list)

    def scores(self, records: Sequence[Record]) -> np.ndarray:
        """The numbers as normal scores, shape (records, columns of numbers), float32; NaN where a cell tells none.

        Between two training values it is linear, beyond the last one constant: no value is further out than those seen.
        """
        found = np.full((len(records), len(self.numbers)), np.nan, np.float32)
        for column, (name, knots) in enumerate(self.numbers.items()):
            for row, record in enumerate(records):
                value = parse_number((record.table or {}).get(name))
                if value is not None:
                    found[row, column] = np.interp(value, *knots)
        return found

    def codes(self, records: Sequence[Record]) -> np.ndarray:
        """The categories by number, shape (records, columns of categories): MISSING, UNKNOWN, then the known ones.

        In a column of numbers, a cell that tells one has no category.
        """
        found = np.full((len(records), len(self.categories)), MISSING, np.int64)
        for column, (name, known) in enumerate(self.categories.items()):
            index = {category: code for code, category in enumerate(known, UNKNOWN + 1)}
            for row, record in enumerate(records):
                cell = (record.table or {}).get(name)
                if cell is not None and not (name in self.numbers and parse_number(cell) is not None):
                    found[row, column] = index.get(str(cell), UNKNOWN)
        return found

    @property
    def sizes(self) -> list[int]:
        """How many codes each column of categories has."""
        return [UNKNOWN + 1 + len(known) for known in self.categories.values()]

    def text(self, record: Record) -> str:
        """The text of a record, then its columns of words, one a line."""
        cells = {name: (record.table or {}).get(name) for name in self.words}
        return "\n".join([*filter(None, [record.text]), *(f"{name}: {cell}" for name, cell in cells.items() if cell)])


def fit_columns(train: Sequence[Record]) -> Columns:
    """The columns as the training rows have them; no other row has a part in it.

    A column holds numbers where most of its cells tell one. Normal scores (van der Waerden 1952) are the quantiles of a
    normal distribution at the values' middle ranks: standardised, and no outlier weighs more than its rank.
    """
    names = dict.fromkeys(name for record in train for name in record.table or {})
    columns = Columns()
    for name in names:
        cells = [cell for record in train if (cell := (record.table or {}).get(name)) is not None]
        values = [value for cell in cells if (value := parse_number(cell)) is not None]
        if 2 * len(values) > len(cells):
            columns.numbers[name] = _knots(np.array(values))
            cells = [cell for cell in cells if parse_number(cell) is None]
        counts = Counter(map(str, cells))
        known = [
            category for category, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])) if count > 1
        ]
        if sum(count == 1 for count in counts.values()) > len(cells) / 2 and name not in columns.numbers:
            columns.words.append(name)
        elif known:
            columns.categories[name] = known[:CATEGORIES]
    return columns


def _knots(values: np.ndarray) -> tuple[list[float], list[float]]:
    """Distinct values, rising, and their normal scores."""
    distinct, counts = np.unique(values, return_counts=True)
    scores = ndtri((np.cumsum(counts) - counts / 2) / len(values))
    kept = np.unique(np.linspace(0, len(distinct) - 1, KNOTS).round().astype(int))
    return distinct[kept].tolist(), scores[kept].tolist()
