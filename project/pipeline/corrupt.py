"""Record -> the record as it is seen under a condition: controlled damage. Level 0 is the identity.

The same seed and record always give the same damage. A record's draw does not depend on the level: a higher level takes
away more of the same, so that curves over levels are smooth and what is lost at 0.3 is lost at 0.7 too.
"""

from collections.abc import Sequence
from dataclasses import replace

from ..corruption.conditions import Condition
from ..corruption.natural import NATURAL
from ..corruption.structure import reordered, without
from ..data.record import Record, seeded
from .modalities import REGISTRY


def corrupt(record: Record, condition: Condition, donors: Sequence[Record] = ()) -> Record:
    """The record as it is seen under a condition; clean gives it back unchanged.

    `donors` are the training rows, from which stale cells are taken; a condition that takes from them and finds none
    is a ValueError.
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
            return _naturally(record, condition, donors)
        case "missing":
            return without(record, condition.modalities)
        case "order":
            return reordered(record, condition.order)
    raise ValueError(f"unknown kind of condition: {condition.kind}")


def _naturally(record: Record, condition: Condition, donors: Sequence[Record]) -> Record:
    """The record with the realistic damage that the condition names."""
    damage = NATURAL[condition.corruption]
    if damage.from_others and not donors:
        raise ValueError(f"{condition} takes from other rows: corrupt() needs the training rows")
    if damage.modality not in record.present or condition.level == 0:
        return record
    rng = seeded(condition.seed, "natural", condition.corruption, record.id)
    others = (donors,) if damage.from_others else ()
    value = damage.apply(getattr(record, damage.modality), condition.level, rng, *others)
    return replace(record, **{damage.modality: value})
