"""Damage of tables."""

from dataclasses import replace

import numpy as np

from ..record import Record


def column_dropout(record: Record, level: float, rng: np.random.Generator) -> Record:
    """Each cell of the row is dropped with probability `level`; the table may end up empty."""
    draws = zip(record.table.items(), rng.random(len(record.table)), strict=True)
    return replace(record, table={name: value for (name, value), draw in draws if draw >= level})
