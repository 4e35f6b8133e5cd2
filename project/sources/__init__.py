"""Where rows come from. Adding a source: one module here, one dataclass in schema.KINDS, one line in READERS."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from ..errors import UserError
from ..record import Record
from ..schema import EmojiData, TableData
from .emoji import read_emoji
from .splits import split_records
from .table import read_table

READERS: dict[str, Callable] = {"emoji": read_emoji, "table": read_table}


@dataclass(frozen=True)
class Rows:
    """The records of each split, and the classes: those of the training split before any cap, in sorted order."""

    train: list[Record]
    val: list[Record]
    test: list[Record]
    classes: tuple[str, ...]


def read_rows(config: EmojiData | TableData) -> Rows:
    """All rows of a source, split. Raises UserError where the training rows know fewer than two classes."""
    records = READERS[config.kind](config)
    uncapped = split_records(records, replace(config.split, max_train=None, max_val=None, max_test=None))
    classes = tuple(sorted({record.target for record in uncapped["train"]}))
    if len(classes) < 2:
        raise UserError(f"data={config.name}: the training rows have the single class {classes[0]!r}; "
                        "nothing can be learned from a constant target")
    return Rows(**split_records(records, config.split, config.limit), classes=classes)
