"""Find near-copies: validation and test rows with (nearly) the text and table of a training row."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from sklearn.feature_extraction.text import HashingVectorizer

from .record import Record
from .rows import Rows

MAX_COMPARED = 20_000
"""Maximum number of training rows, and of validation and test rows, that are compared."""
_BLOCK_ROWS = 500
"""Number of rows whose similarities to all training rows are in memory at once."""


@dataclass(frozen=True)
class Copy:
    """A row of `split`, the most similar training row, and their similarity in [0, 1]."""

    split: str
    row: str
    train: str
    similarity: float


@dataclass(frozen=True)
class Copies:
    """The pairs, the most similar first. `compared` and `rows` count (held-out, training) rows: compared, and all."""

    pairs: tuple[Copy, ...]
    threshold: float
    compared: tuple[int, int]
    rows: tuple[int, int]

    def __str__(self) -> str:
        counts = {split: sum(pair.split == split for pair in self.pairs) for split in ("val", "test")}
        summary = (
            f"{counts['val']} validation and {counts['test']} test rows have a training row with nearly the same "
            f"text and table (cosine of at least {self.threshold:g})"
        )
        if self.compared == self.rows:
            return summary
        return (
            f"{summary}; only the first {self.compared[0]} of {self.rows[0]} validation and test rows and the first "
            f"{self.compared[1]} of {self.rows[1]} training rows were compared"
        )


def near_copies(rows: Rows, threshold: float = 0.9) -> Copies:
    """Return the validation and test rows with (nearly) the text and table of a training row, each with that row.

    The similarity is the cosine of hashed counts of words, word pairs and cells; equal rows have 1. Images are not
    compared: rows that differ only in the image are near-copies, and rows that share only the image are not. Rows
    without text and table are skipped. Groups do not matter. Only the first MAX_COMPARED rows are compared.
    """
    held_out = [(split, record) for split in ("val", "test") for record in getattr(rows, split)]
    counts = (len(held_out), len(rows.train))
    held_out, train = held_out[:MAX_COMPARED], rows.train[:MAX_COMPARED]
    train_vectors, held_out_vectors = _vectors(train), _vectors([record for _, record in held_out])
    pairs = []
    for start in range(0, len(held_out) if train else 0, _BLOCK_ROWS):
        similarity = (held_out_vectors[start : start + _BLOCK_ROWS] @ train_vectors.T).toarray()
        for row, nearest in enumerate(similarity.argmax(axis=1)):
            # Rounding, because equal rows may miss 1 by a float32 rounding error.
            value = min(1.0, round(float(similarity[row, nearest]), 4))
            if value >= threshold:
                split, record = held_out[start + row]
                pairs.append(Copy(split, record.id, train[nearest].id, value))
    pairs.sort(key=lambda pair: (-pair.similarity, pair.split, pair.row))
    return Copies(tuple(pairs), threshold, (len(held_out), len(train)), counts)


def _vectors(records: Sequence[Record]):
    """Return sparse counts of length 1 and shape (rows, 2**20); rows without text and table are zero."""
    vectorizer = HashingVectorizer(analyzer=_tokens, alternate_sign=False, norm="l2", dtype=np.float32)
    return vectorizer.transform(records) if records else vectorizer.transform([Record("", "")])[:0]


def _tokens(record: Record) -> list[str]:
    """Return the words and word pairs of a text, and each cell of a table with its column.

    Column names do not count alone: every row has them, so they would make all rows similar.
    """
    words = re.findall(r"\w+", (record.text or "").lower())
    pairs = [f"{first} {second}" for first, second in pairwise(words)]
    return words + pairs + [f"{column}={cell}" for column, cell in (record.table or {}).items() if cell is not None]
