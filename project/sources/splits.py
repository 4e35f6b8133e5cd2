"""Deterministic, grouped splits: a row's place follows from a hash of its group, whatever other rows there are."""

import hashlib
import math
from collections.abc import Iterable

from ..errors import UserError
from ..record import Record
from ..schema import Split

SPLITS = ("train", "val", "test")


def _fraction(*parts: object) -> float:
    """A number in [0, 1) that depends on the parts alone."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def split_records(records: Iterable[Record], split: Split, limit: int | None = None) -> dict[str, list[Record]]:
    """Records by split name; all records of a group land in one split.

    Within a split the records stand in an order drawn by hash, and the caps and `limit` keep the first ones, so that
    a smaller selection is always a part of a larger one. `limit` keeps about so many over all splits, in proportion.
    Raises UserError where a split is left without a row.
    """
    if split.val + split.test >= 1 or min(split.val, split.test) < 0:
        raise UserError(f"data.split: val={split.val} and test={split.test} leave nothing to train on; lower them")
    chosen: dict[str, list[Record]] = {name: [] for name in SPLITS}
    for record in records:
        share = _fraction(split.seed, record.group)
        name = "test" if share < split.test else "val" if share < split.test + split.val else "train"
        chosen[name].append(record)
    for name, rows in chosen.items():
        rows.sort(key=lambda record: (_fraction(split.seed, "order", record.id), record.id))
        cap = getattr(split, f"max_{name}")
        chosen[name] = rows[:cap]
    total = sum(map(len, chosen.values()))
    if limit is not None and limit < total:
        chosen = {name: rows[: math.ceil(limit * len(rows) / total)] for name, rows in chosen.items()}
    for name, rows in chosen.items():
        if not rows:
            raise UserError(f"the {name} split has no rows; change the shares or caps under data.split, or add rows")
    return chosen
