"""Rows of the sources, split.

To add a source, write a reader in sources/, a registered dataclass in config/schema/data.py and conf/data/<name>.yaml.
The data card shows the module's TITLE, SOURCE and TERMS, if defined.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ..config.schema import PARTS, DataConfig
from ..errors import UserError
from .record import MODALITIES, Record
from .splits import SPLITS, split_of, split_records
from .target import Target, class_target, number_target


@dataclass(frozen=True)
class Rows:
    """The records of each split, the target, and the modalities that any record has, in reading order."""

    train: list[Record]
    val: list[Record]
    test: list[Record]
    target: Target
    modalities: tuple[str, ...]


def read_rows(config: DataConfig) -> Rows:
    """Read and split the rows of a source; only rows within the caps and the limit stay in memory.

    Raises UserError if a split is empty, or if the training rows have a constant target.
    """
    rows = select_rows(config)
    empty = [name for name in SPLITS if not getattr(rows, name)]
    if empty:
        counts = ", ".join(f"{name} {len(getattr(rows, name))}" for name in SPLITS)
        raise UserError(
            f"data={config.name}: no rows are left for {' and '.join(empty)} ({counts}); add rows or "
            "groups, or raise data.limit, data.split.val or data.split.test"
        )
    return rows


def select_rows(config: DataConfig) -> Rows:
    """Like read_rows, but splits may be empty; without training rows, the other rows define the target.

    Raises UserError if there is no row at all, or if the target is constant.
    """
    classes: set[str | float] = set()
    records = _collect_classes(read_records(config), config, classes)
    splits = split_records(records, config.split, config.limit)
    train = splits["train"] or splits["val"] + splits["test"]
    if not train:
        raise UserError(f"data={config.name}: the source has no rows")
    if isinstance(train[0].target, float):
        target = number_target(train, getattr(config, "log", False), config.name)
    else:
        kind = "ordinal" if getattr(config, "task", "class") == "ordinal" else "class"
        target = class_target(kind, classes or {record.target for record in train}, train, config.name)
    present = {name for rows in splits.values() for record in rows for name in record.present}
    return Rows(**splits, target=target, modalities=tuple(name for name in MODALITIES if name in present))


def read_records(config: DataConfig) -> Iterable[Record]:
    """Yield the records of the configured source, in any order."""
    return PARTS["data"][config.kind].load()(config)


def _collect_classes(records: Iterable[Record], config: DataConfig, classes: set[str | float]) -> Iterator[Record]:
    """Yield the records, and collect the classes of all training rows before any cap."""
    for record in records:
        if isinstance(record.target, str) and split_of(record, config.split) == "train":
            classes.add(record.target)
        yield record
