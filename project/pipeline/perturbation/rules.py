"""Perturbation by rules, without a language model: the baseline for rewriting by an LLM.

The rules apply the corruptions of the evaluation to texts: dropped words, dropped cells, a missing modality, another
order.
"""

import re

from ...data.record import seeded
from ..alignment import Parts

MISSING_PROBABILITY = 0.25
"""Probability that one of several parts is removed."""


def apply_rules(parts: Parts, level: float, id: str, round: int) -> Parts:
    """Return the parts after dropout at a rate drawn from [0, `level`], perhaps a missing part, and a random order.

    A table loses cells (its sentences), any other part loses words. Level 0 is the identity.
    """
    if level == 0 or not parts:
        return parts
    rng = seeded("rules", id, round)
    rate = rng.uniform(0, level)
    remaining = [(name, _drop(text, rate, name == "table", rng)) for name, text in parts]
    if len(remaining) > 1 and rng.random() < MISSING_PROBABILITY:
        del remaining[rng.integers(len(remaining))]
    order = rng.permutation(len(remaining))
    return tuple(remaining[index] for index in order if remaining[index][1])


def _drop(text: str, rate: float, by_sentence: bool, rng) -> str:
    """Return the text after dropping each sentence, or word, with probability `rate`."""
    units = re.split(r"(?<=\.)\s+", text) if by_sentence else text.split()
    return " ".join(unit for unit, draw in zip(units, rng.random(len(units)), strict=True) if draw >= rate)
