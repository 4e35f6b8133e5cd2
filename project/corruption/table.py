"""Corrupt tables. Missing cells stay missing."""

import re
from collections.abc import Sequence
from decimal import Decimal

import numpy as np

from ..data.record import Cell, Record

UNITS = {
    "kg": ("g", "1000"),
    "g": ("kg", "0.001"),
    "mg": ("g", "0.001"),
    "km": ("m", "1000"),
    "m": ("cm", "100"),
    "cm": ("mm", "10"),
    "mm": ("cm", "0.1"),
    "l": ("ml", "1000"),
    "ml": ("l", "0.001"),
    "year": ("months", "12"),
    "years": ("months", "12"),
    "month": ("days", "30"),
    "months": ("days", "30"),
    "week": ("days", "7"),
    "weeks": ("days", "7"),
    "day": ("hours", "24"),
    "days": ("hours", "24"),
    "hour": ("minutes", "60"),
    "hours": ("minutes", "60"),
    "minute": ("seconds", "60"),
    "minutes": ("seconds", "60"),
    "dollar": ("cents", "100"),
    "dollars": ("cents", "100"),
    "euro": ("cents", "100"),
    "euros": ("cents", "100"),
    "ringgit": ("sen", "100"),
    "percent": ("per mille", "10"),
    "%": ("per mille", "10"),
    "кг": ("г", "1000"),
    "г": ("кг", "0.001"),
    "км": ("м", "1000"),
    "м": ("см", "100"),
    "см": ("мм", "10"),
    "руб": ("коп", "100"),
}
"""The unit that a quantity is converted to, and the factor. A month counts as 30 days."""

_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")
_QUANTITY = re.compile(rf"(?<![\w.,])({_NUMBER.pattern})\s?({'|'.join(sorted(UNITS, key=len, reverse=True))})(?!\w)")


def column_dropout(table: dict[str, Cell], level: float, rng: np.random.Generator) -> dict[str, Cell]:
    """Remove each cell of the row with probability `level`; all may go."""
    draws = zip(table.items(), rng.random(len(table)), strict=True)
    return {name: value if draw >= level else None for (name, value), draw in draws}


def unit_changes(table: dict[str, Cell], level: float, rng: np.random.Generator) -> dict[str, Cell]:
    """Change the unit of each cell with probability `level`, as in data from another supplier.

    A quantity with a unit is converted and keeps its meaning: 2 kg becomes 2000 g. A plain number has no unit that
    could show the change: it becomes 1000 times greater or smaller, equally often. Other cells stay unchanged.
    """
    draws = zip(table.items(), rng.random((len(table), 2)), strict=True)
    return {
        name: _in_other_unit(value, direction < 0.5) if hit < level else value
        for (name, value), (hit, direction) in draws
    }


def swapped_cells(table: dict[str, Cell], level: float, rng: np.random.Generator) -> dict[str, Cell]:
    """Pair the columns that have a value at random, and swap the values of each pair with probability `level`.

    If their number is odd, one column is in no pair.
    """
    columns = [name for name, value in table.items() if value is not None]
    order = rng.permutation(len(columns))
    pairs = [(columns[one], columns[other]) for one, other in zip(order[::2], order[1::2], strict=False)]
    swapped = dict(table)
    for (one, other), draw in zip(pairs, rng.random(len(pairs)), strict=True):
        if draw < level:
            swapped[one], swapped[other] = table[other], table[one]
    return swapped


def stale_cells(
    table: dict[str, Cell], level: float, rng: np.random.Generator, donors: Sequence[Record]
) -> dict[str, Cell]:
    """Replace each cell, with probability `level`, by the cell of another row; the new value may equal the old one.

    The row is drawn from `donors` for each column; rows without the cell, and the row itself, are skipped.
    """
    draws = zip(table.items(), rng.random(len(table)), rng.integers(len(donors), size=len(table)), strict=True)
    return {
        name: _donor_cell(name, value, table, donors, start) if value is not None and draw < level else value
        for (name, value), draw, start in draws
    }


def _in_other_unit(value: Cell, greater: bool) -> Cell:
    if isinstance(value, int | float):
        return value * 1000 if greater else value / 1000
    if value is None:
        return None
    if _NUMBER.fullmatch(value):
        return _multiply(value, "1000" if greater else "0.001")
    return _QUANTITY.sub(lambda match: f"{_multiply(match[1], UNITS[match[2]][1])} {UNITS[match[2]][0]}", value)


def _multiply(number: str, factor: str) -> str:
    """Return the exact product without an exponent and without trailing zeros of a fraction."""
    product = f"{Decimal(number) * Decimal(factor):f}"
    return product.rstrip("0").rstrip(".") if "." in product else product


def _donor_cell(column: str, value: Cell, table: dict[str, Cell], donors: Sequence[Record], start: int) -> Cell:
    """Return the cell of the first other row from `start` on that has the column; `value` if there is no such row."""
    for step in range(len(donors)):
        donor_table = donors[(start + step) % len(donors)].table
        if donor_table is not None and donor_table is not table and donor_table.get(column) is not None:
            return donor_table[column]
    return value
