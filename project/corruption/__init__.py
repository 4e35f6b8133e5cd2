"""Controlled damage of a raw Record. Level 0 is the identity; the same seed and record always give the same damage.

A record's draw does not depend on the level: a higher level takes away more of the same, so that curves over levels
are smooth and what is lost at 0.3 is lost at 0.7 too.
"""

from ..record import Record, seeded
from ..robustness.conditions import Condition
from .image import gaussian_noise
from .missing import without
from .order import reordered
from .table import column_dropout
from .text import word_dropout

NOISE = {"image": gaussian_noise, "text": word_dropout, "table": column_dropout}


def corrupt(record: Record, condition: Condition) -> Record:
    """The record as it is seen under a condition; clean gives it back unchanged."""
    match condition.kind:
        case "clean":
            return record
        case "noisy":
            for name in condition.modalities:
                if name in record.present and condition.level > 0:
                    record = NOISE[name](record, condition.level, seeded(condition.seed, "noise", name, record.id))
            return record
        case "missing":
            return without(record, condition.modalities)
        case "order":
            return reordered(record, condition.order)
    raise ValueError(f"unknown kind of condition: {condition.kind}")
