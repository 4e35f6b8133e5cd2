"""Damage of text."""

from dataclasses import replace

import numpy as np

from ..record import Record


def word_dropout(record: Record, level: float, rng: np.random.Generator) -> Record:
    """Each word, by white space, is dropped with probability `level`; the text may end up empty."""
    words = record.text.split()
    kept = [word for word, draw in zip(words, rng.random(len(words)), strict=True) if draw >= level]
    return record if len(kept) == len(words) else replace(record, text=" ".join(kept))
