"""Damage of tables."""

import numpy as np

from ..record import Cell


def column_dropout(table: dict[str, Cell], level: float, rng: np.random.Generator) -> dict[str, Cell]:
    """Each cell of the row goes missing with probability `level`; all of them may."""
    draws = zip(table.items(), rng.random(len(table)), strict=True)
    return {name: value if draw >= level else None for (name, value), draw in draws}
