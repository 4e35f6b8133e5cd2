"""Record -> the record as it is seen under a condition: controlled damage. Level 0 is the identity.

The same seed and record always give the same damage. A record's draw does not depend on the level: a higher level takes
away more of the same, so that curves over levels are smooth and what is lost at 0.3 is lost at 0.7 too.
"""

from dataclasses import replace

from .corruption.missing import without
from .corruption.order import reordered
from .modality import REGISTRY
from .record import Record, seeded
from .robustness.conditions import Condition


def corrupt(record: Record, condition: Condition) -> Record:
    """The record as it is seen under a condition; clean gives it back unchanged."""
    match condition.kind:
        case "clean":
            return record
        case "noisy":
            for name in condition.modalities:
                if name in record.present and condition.level > 0:
                    rng = seeded(condition.seed, "noise", name, record.id)
                    damaged = REGISTRY[name].noise(getattr(record, name), condition.level, rng)
                    record = replace(record, **{name: damaged})
            return record
        case "missing":
            return without(record, condition.modalities)
        case "order":
            return reordered(record, condition.order)
    raise ValueError(f"unknown kind of condition: {condition.kind}")
