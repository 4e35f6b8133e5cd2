"""The validation panel: the rows and conditions that every choice is made on, none on the test rows."""

from collections.abc import Sequence

from .scores import SCORES, drop_ratio


def panel_summary(scores: Sequence[float], metric: str) -> dict[str, float]:
    """`score`, the mean over the panel's conditions, `clean`, the first of them, and `drop_ratio` of the others' mean.

    Where clean is the only condition, there is no drop_ratio.
    """
    clean, *corrupted = scores
    found = {"score": sum(scores) / len(scores), "clean": clean}
    if corrupted:
        mean = sum(corrupted) / len(corrupted)
        found["drop_ratio"] = float(drop_ratio(clean, mean, SCORES[metric].higher_is_better))
    return found
