"""Damage of text."""

import numpy as np


def word_dropout(text: str, level: float, rng: np.random.Generator) -> str:
    """Each word, by white space, is dropped with probability `level`; the text may end up empty."""
    words = text.split()
    kept = [word for word, draw in zip(words, rng.random(len(words)), strict=True) if draw >= level]
    return text if len(kept) == len(words) else " ".join(kept)
