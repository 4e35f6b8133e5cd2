"""Deterministic, grouped splits: a row's place follows from a hash of its group, whatever other rows there are."""

import hashlib
import math
from collections.abc import Iterable

from ..config.schema import SplitConfig
from ..errors import UserError
from .record import Record

SPLITS = ("train", "val", "test")


def _fraction(*parts: object) -> float:
    """A number in [0, 1) that depends on the parts alone."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def split_of(record: Record, split: SplitConfig) -> str:
    """The split that a record's group belongs to, train, val or test, unless its source says which."""
    if record.split is not None:
        return record.split
    share = (_fraction(split.seed, record.group) - split.fold * split.test) % 1
    return "test" if share < split.test else "val" if share < split.test + split.val else "train"


def split_records(records: Iterable[Record], split: SplitConfig, limit: int | None = None) -> dict[str, list[Record]]:
    """Records by split name; all records of a group land in one split, unless their source says in which they must be,
    and a split may be left without any.

    Within a split the records stand in an order drawn by hash, and the caps and `limit` keep the first ones, so that
    a smaller selection is always a part of a larger one. `limit` keeps about so many over all splits, in proportion.
    The records pass by once, and never more than twice what is kept are held. Raises UserError where val and test leave
    nothing to train on.
    """
    if split.val + split.test >= 1 or min(split.val, split.test) < 0:
        raise UserError(f"data.split: val={split.val} and test={split.test} leave nothing to train on; lower them")
    caps = {name: getattr(split, f"max_{name}") for name in SPLITS}
    most = {name: min((cap for cap in (caps[name], limit) if cap is not None), default=None) for name in SPLITS}
    kept: dict[str, list[tuple[float, str, Record]]] = {name: [] for name in SPLITS}
    counts = dict.fromkeys(SPLITS, 0)

    def first(name: str) -> None:
        kept[name].sort(key=lambda row: row[:2])
        del kept[name][most[name] :]

    for record in records:
        name = split_of(record, split)
        counts[name] += 1
        kept[name].append((_fraction(split.seed, "order", record.id), record.id, record))
        if most[name] is not None and len(kept[name]) >= 2 * most[name] + 1000:
            first(name)
    for name in SPLITS:
        most[name] = counts[name] if most[name] is None else most[name]
        first(name)
    sizes = {name: count if caps[name] is None else min(count, caps[name]) for name, count in counts.items()}
    total = sum(sizes.values())
    if limit is not None and limit < total:
        sizes = {name: math.ceil(limit * size / total) for name, size in sizes.items()}
    return {name: [record for _, _, record in kept[name][: sizes[name]]] for name in SPLITS}
