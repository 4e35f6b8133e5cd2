"""The validation panel: scores of validation rows under a few conditions, by which all choices are made."""

from collections.abc import Sequence

from .scores import SCORES, drop_ratio


def panel_summary(scores: Sequence[float], metric: str) -> dict[str, float]:
    """Return `score`, the mean over the conditions, `clean`, the first of them, and `drop_ratio` of the others' mean.

    `scores` begins with the clean one. The result has no `drop_ratio` if it is the only one.
    """
    clean, *corrupted = scores
    summary = {"score": sum(scores) / len(scores), "clean": clean}
    if corrupted:
        mean = sum(corrupted) / len(corrupted)
        summary["drop_ratio"] = float(drop_ratio(clean, mean, SCORES[metric].higher_is_better))
    return summary
