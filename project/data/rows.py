"""Where rows come from. Adding a source: one module here, named after its kind, one dataclass in schema.KINDS, one line
in READERS, and one conf/data/<name>.yaml.

The module's TITLE, SOURCE and TERMS, where it has them, stand in the data card.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from ..config.schema import DataConfig
from ..errors import UserError
from .record import MODALITIES, Record
from .sources.airbnb import read_airbnb
from .sources.avito import read_avito
from .sources.emoji import read_emoji
from .sources.petfinder import read_petfinder
from .sources.table import read_table
from .splits import SPLITS, split_of, split_records
from .target import Target, class_target, number_target

READERS: dict[str, Callable[..., Iterable[Record]]] = {
    "emoji": read_emoji,
    "table": read_table,
    "petfinder": read_petfinder,
    "airbnb": read_airbnb,
    "avito": read_avito,
}


@dataclass(frozen=True)
class Rows:
    """The records of each split, what is predicted, and the modalities that any record has, in reading order."""

    train: list[Record]
    val: list[Record]
    test: list[Record]
    target: Target
    modalities: tuple[str, ...]


def read_rows(config: DataConfig) -> Rows:
    """All rows of a source, split; only those that the caps and the limit keep are held in memory.

    Raises UserError where a split is left without a row, or the training rows have a constant target.
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
    """Like read_rows, but a split may be empty; without training rows the target is that of all others.

    Raises UserError where there are no rows at all.
    """
    classes: set[str | float] = set()
    chosen = split_records(_watched(READERS[config.kind](config), config, classes), config.split, config.limit)
    train = chosen["train"] or chosen["val"] + chosen["test"]
    if not train:
        raise UserError(f"data={config.name}: there are no rows")
    if isinstance(train[0].target, float):
        target = number_target(train, getattr(config, "log", False), config.name)
    else:
        kind = "ordinal" if getattr(config, "task", "class") == "ordinal" else "class"
        target = class_target(kind, classes or {record.target for record in train}, train, config.name)
    present = {name for rows in chosen.values() for record in rows for name in record.present}
    return Rows(**chosen, target=target, modalities=tuple(name for name in MODALITIES if name in present))


def _watched(records: Iterable[Record], config: DataConfig, classes: set[str | float]) -> Iterator[Record]:
    """The records as they pass; the classes of those that train, before any cap, are noted."""
    for record in records:
        if isinstance(record.target, str) and split_of(record, config.split) == "train":
            classes.add(record.target)
        yield record
