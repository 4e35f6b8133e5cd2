"""Apply a condition to a record: controlled corruption. Level 0 is the identity.

Equal seeds and records give equal corruptions. The random draws do not depend on the level: a higher level removes more
of the same, so that curves over levels are smooth, and what is lost at 0.3 is also lost at 0.7.
"""

from collections.abc import Sequence
from dataclasses import replace

from ..corruption.conditions import Condition
from ..corruption.natural import NATURAL
from ..corruption.structure import reordered, without
from ..data.record import Record, seeded
from .modalities import REGISTRY


def corrupt(record: Record, condition: Condition, donors: Sequence[Record] = ()) -> Record:
    """Return the record under a condition; clean returns it unchanged.

    `donors` are the training rows, the source of stale cells. Raises ValueError for an unknown kind of condition, or if
    the condition needs donors and there are none.
    """
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
        case "natural":
            return _corrupt_naturally(record, condition, donors)
        case "missing":
            return without(record, condition.modalities)
        case "order":
            return reordered(record, condition.order)
    raise ValueError(f"unknown kind of condition: {condition.kind}")


def _corrupt_naturally(record: Record, condition: Condition, donors: Sequence[Record]) -> Record:
    """Return the record with the realistic corruption of the condition."""
    damage = NATURAL[condition.corruption]
    if damage.from_others and not donors:
        raise ValueError(f"{condition} needs the training rows: pass donors to corrupt()")
    if damage.modality not in record.present or condition.level == 0:
        return record
    rng = seeded(condition.seed, "natural", condition.corruption, record.id)
    others = (donors,) if damage.from_others else ()
    value = damage.apply(getattr(record, damage.modality), condition.level, rng, *others)
    return replace(record, **{damage.modality: value})
