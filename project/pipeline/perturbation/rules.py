"""Perturbation by rules, without a language model: the rival that an LLM's rewriting has to beat.

It draws from what the evaluation does to raw records, but acts on texts: words dropped, cells dropped, a whole
modality taken away, another order.
"""

import re

from ...data.record import seeded
from ..alignment import Parts

MISSING_PROBABILITY = 0.25
"""Probability that one of several parts is taken away whole."""


def apply_rules(parts: Parts, level: float, id: str, round: int) -> Parts:
    """The parts after dropout at a level drawn from [0, `level`], a missing part, and a random order.

    A table loses whole cells (its sentences), any other part loses words. At level 0 nothing is changed at all.
    """
    if level == 0 or not parts:
        return parts
    rng = seeded("rules", id, round)
    share = rng.uniform(0, level)
    kept = [(name, _dropped(text, share, name == "table", rng)) for name, text in parts]
    if len(kept) > 1 and rng.random() < MISSING_PROBABILITY:
        del kept[rng.integers(len(kept))]
    order = rng.permutation(len(kept))
    return tuple(kept[index] for index in order if kept[index][1])


def _dropped(text: str, share: float, by_sentence: bool, rng) -> str:
    """The text without each of its sentences, or words, with probability `share`."""
    units = re.split(r"(?<=\.)\s+", text) if by_sentence else text.split()
    return " ".join(unit for unit, draw in zip(units, rng.random(len(units)), strict=True) if draw >= share)
