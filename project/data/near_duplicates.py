"""Near-copies: validation and test rows that say (nearly) what a training row says."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from sklearn.feature_extraction.text import HashingVectorizer

from .record import Record
from .rows import Rows

MOST = 20_000
"""Rows of each side that are compared at most."""
BLOCK = 500
"""Rows whose similarities to all training rows are in memory at once."""


@dataclass(frozen=True)
class Copy:
    """A row of `split` and the training row that it is nearest to, with their similarity in [0, 1]."""

    split: str
    row: str
    train: str
    similarity: float


@dataclass(frozen=True)
class Copies:
    """The pairs, the nearest first. `compared` and `rows` count held-out and training rows: those compared, and all."""

    pairs: tuple[Copy, ...]
    threshold: float
    compared: tuple[int, int]
    rows: tuple[int, int]

    def __str__(self) -> str:
        counts = {split: sum(pair.split == split for pair in self.pairs) for split in ("val", "test")}
        told = (
            f"{counts['val']} validation and {counts['test']} test rows have a training row with nearly the same "
            f"text and table (cosine of at least {self.threshold:g})"
        )
        if self.compared == self.rows:
            return told
        return (
            f"{told}; compared were the first {self.compared[0]} of {self.rows[0]} validation and test rows with "
            f"the first {self.compared[1]} of {self.rows[1]} training rows"
        )


def near_copies(rows: Rows, threshold: float = 0.9) -> Copies:
    """Validation and test rows whose text and table are (nearly) those of a training row, each with its nearest one.

    The similarity is the cosine of hashed counts of words, pairs of words and cells; 1 for equal rows. Images are not
    compared: rows that differ in their image alone are near-copies, and rows that share only an image are not. Rows
    without text and table are passed over. Groups do not matter. Of each side the first MOST rows are compared.
    """
    held = [(split, record) for split in ("val", "test") for record in getattr(rows, split)]
    counts = (len(held), len(rows.train))
    held, train = held[:MOST], rows.train[:MOST]
    known, asked = _vectors(train), _vectors([record for _, record in held])
    pairs = []
    for start in range(0, len(held) if train else 0, BLOCK):
        similarity = (asked[start : start + BLOCK] @ known.T).toarray()
        for place, nearest in enumerate(similarity.argmax(axis=1)):
            # Equal rows may miss 1 by the rounding of 32 bits.
            value = min(1.0, round(float(similarity[place, nearest]), 4))
            if value >= threshold:
                split, record = held[start + place]
                pairs.append(Copy(split, record.id, train[nearest].id, value))
    pairs.sort(key=lambda pair: (-pair.similarity, pair.split, pair.row))
    return Copies(tuple(pairs), threshold, (len(held), len(train)), counts)


def _vectors(records: Sequence[Record]):
    """The counts at length 1, shape (rows, 2**20), sparse; a row of zeros where nothing is said."""
    vectorizer = HashingVectorizer(analyzer=_said, alternate_sign=False, norm="l2", dtype=np.float32)
    return vectorizer.transform(records) if records else vectorizer.transform([Record("", "")])[:0]


def _said(record: Record) -> list[str]:
    """The words and pairs of words of a text, and each cell of a table with its column.

    The words of the columns do not count by themselves: they are those of every row, which would make all rows alike.
    """
    words = re.findall(r"\w+", (record.text or "").lower())
    pairs = [f"{first} {second}" for first, second in pairwise(words)]
    return words + pairs + [f"{column}={cell}" for column, cell in (record.table or {}).items() if cell is not None]
