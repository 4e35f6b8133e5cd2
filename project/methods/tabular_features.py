"""Tables for numeric models: numeric, categorical and text columns, inferred from the training rows."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.special import ndtri

from ..data.record import Cell, Record

_MAX_CATEGORIES = 250
"""Categories with a code of their own in a column, the most frequent ones; scikit-learn's trees accept 255."""
_MAX_KNOTS = 1000
"""Values that describe the distribution of a numeric column."""
MISSING, UNKNOWN = 0, 1
"""Codes of a missing category, and of one that fewer than two training rows have; the known categories follow."""

_MONTHS = {"year": 12, "month": 1, "week": 7 * 12 / 365.25, "day": 12 / 365.25}
_SPAN = re.compile(rf"(\d+) ({'|'.join(_MONTHS)})s?")
_SPANS = re.compile(rf"{_SPAN.pattern}(?: and {_SPAN.pattern})*")
_QUANTITY = re.compile(r"([-+]?)[$€£¥₹]?(\d{1,3}(?:,\d{3})+|\d+)(\.\d+)?(?: ?%|(?: [^\W\d]+){1,3})?")


def parse_number(cell: Cell) -> float | None:
    """Return the number in a cell, or None: 4, "$1,250.00", "50 ringgit", "95 percent"; "2 years and 1 month" is 25.

    A date, a code with letters or a longer text is not a number.
    """
    if cell is None or isinstance(cell, int | float):
        return None if cell is None or not math.isfinite(cell) else float(cell)
    text = cell.strip().lower()
    if _SPANS.fullmatch(text):
        return float(sum(int(count) * _MONTHS[unit] for count, unit in _SPAN.findall(text)))
    if match := _QUANTITY.fullmatch(text):
        sign, integer, fraction = match.groups()
        return float(sign + integer.replace(",", "") + (fraction or ""))
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


@dataclass(frozen=True)
class Columns:
    """Columns of the training rows, as plain values that JSON can store.

    `numbers` has a column's values and their normal scores, both increasing; `categories` its known categories. A
    column may be in both: "free" among prices. `words` are the columns in which most cells are unique; they are read
    as text.
    """

    numbers: dict[str, tuple[list[float], list[float]]] = field(default_factory=dict)
    categories: dict[str, list[str]] = field(default_factory=dict)
    words: list[str] = field(default_factory=list)

    def scores(self, records: Sequence[Record]) -> np.ndarray:
        """Return the numbers as normal scores, shape (records, numeric columns), float32; NaN for other cells.

        Scores are linear between two training values and constant beyond the extreme ones, so no score exceeds those
        of the training rows.
        """
        scores = np.full((len(records), len(self.numbers)), np.nan, np.float32)
        for column, (name, knots) in enumerate(self.numbers.items()):
            for row, record in enumerate(records):
                value = parse_number((record.table or {}).get(name))
                if value is not None:
                    scores[row, column] = np.interp(value, *knots)
        return scores

    def codes(self, records: Sequence[Record]) -> np.ndarray:
        """Return the codes of categories, shape (records, categorical columns): MISSING, UNKNOWN, then the known ones.

        In a numeric column, a cell with a number has the code MISSING.
        """
        codes = np.full((len(records), len(self.categories)), MISSING, np.int64)
        for column, (name, categories) in enumerate(self.categories.items()):
            code_of = {category: code for code, category in enumerate(categories, UNKNOWN + 1)}
            for row, record in enumerate(records):
                cell = (record.table or {}).get(name)
                if cell is not None and not (name in self.numbers and parse_number(cell) is not None):
                    codes[row, column] = code_of.get(str(cell), UNKNOWN)
        return codes

    @property
    def sizes(self) -> list[int]:
        """Number of codes of each categorical column."""
        return [UNKNOWN + 1 + len(categories) for categories in self.categories.values()]

    def text(self, record: Record) -> str:
        """Return the text of a record, then its text columns, one per line."""
        cells = {name: (record.table or {}).get(name) for name in self.words}
        return "\n".join([*filter(None, [record.text]), *(f"{name}: {cell}" for name, cell in cells.items() if cell)])


def fit_columns(train: Sequence[Record]) -> Columns:
    """Infer the columns from the training rows alone.

    A column is numeric if most of its cells contain a number. Normal scores (van der Waerden 1952) are the quantiles
    of a normal distribution at the mid-ranks of the values: they are standardised and robust to outliers.
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
        categories = [
            category for category, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])) if count > 1
        ]
        if sum(count == 1 for count in counts.values()) > len(cells) / 2 and name not in columns.numbers:
            columns.words.append(name)
        elif categories:
            columns.categories[name] = categories[:_MAX_CATEGORIES]
    return columns


def _knots(values: np.ndarray) -> tuple[list[float], list[float]]:
    """Return distinct values, increasing, and their normal scores; evenly spaced ones if there are too many."""
    distinct, counts = np.unique(values, return_counts=True)
    scores = ndtri((np.cumsum(counts) - counts / 2) / len(values))
    indices = np.unique(np.linspace(0, len(distinct) - 1, _MAX_KNOTS).round().astype(int))
    return distinct[indices].tolist(), scores[indices].tolist()
