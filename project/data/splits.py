"""Split rows by a hash of their group: deterministic, and independent of the other rows."""

import hashlib
import math
from collections.abc import Iterable

from ..config.schema import SplitConfig
from ..errors import UserError
from .record import Record

SPLITS = ("train", "val", "test")


def _fraction(*parts: object) -> float:
    """Return a number in [0, 1) that depends on the parts only."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def split_of(record: Record, split: SplitConfig) -> str:
    """Return train, val or test: the split that the source assigns, else the split of the record's group."""
    if record.split is not None:
        return record.split
    share = (_fraction(split.seed, record.group) - split.fold * split.test) % 1
    return "test" if share < split.test else "val" if share < split.test + split.val else "train"


def split_records(records: Iterable[Record], split: SplitConfig, limit: int | None = None) -> dict[str, list[Record]]:
    """Return the records by split name. All records of a group are in one split, unless the source assigns splits.

    Each split is sorted by a hash, and the caps of `split` keep its first records, so that a smaller selection is a
    prefix of a larger one. `limit` keeps about that many records over all splits, in proportion. A split may be empty.
    The records are read once; memory holds at most twice the selected records, plus 1000 per split. Raises UserError if
    val and test leave no share for training.
    """
    if split.val + split.test >= 1 or min(split.val, split.test) < 0:
        raise UserError(f"data.split: val={split.val} and test={split.test} leave no rows for training; lower them")
    caps = {name: getattr(split, f"max_{name}") for name in SPLITS}
    maxima = {name: min((cap for cap in (caps[name], limit) if cap is not None), default=None) for name in SPLITS}
    selected: dict[str, list[tuple[float, str, Record]]] = {name: [] for name in SPLITS}
    counts = dict.fromkeys(SPLITS, 0)

    def sort_and_cap(name: str) -> None:
        selected[name].sort(key=lambda row: row[:2])
        del selected[name][maxima[name] :]

    for record in records:
        name = split_of(record, split)
        counts[name] += 1
        selected[name].append((_fraction(split.seed, "order", record.id), record.id, record))
        if maxima[name] is not None and len(selected[name]) >= 2 * maxima[name] + 1000:
            sort_and_cap(name)
    for name in SPLITS:
        maxima[name] = counts[name] if maxima[name] is None else maxima[name]
        sort_and_cap(name)
    sizes = {name: count if caps[name] is None else min(count, caps[name]) for name, count in counts.items()}
    total = sum(sizes.values())
    if limit is not None and limit < total:
        sizes = {name: math.ceil(limit * size / total) for name, size in sizes.items()}
    return {name: [record for _, _, record in selected[name][: sizes[name]]] for name in SPLITS}
