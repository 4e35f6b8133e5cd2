"""The validation panel: the rows and conditions that every choice is made on, none on the test rows."""

from collections.abc import Sequence

from ..config.schema import Config
from ..corruption.conditions import validation_conditions
from ..data.rows import Rows
from ..methods.base import Predictor
from .scores import SCORES, drop_ratio, score


def panel_scores(predictor: Predictor, rows: Rows, config: Config) -> dict[str, float]:
    """What a method's answers for the validation rows are worth; see `summed_up`."""
    conditions = validation_conditions(config.robustness, rows.modalities)
    targets, metric = [record.target for record in rows.val], rows.target.metric
    scores = [score(targets, predictor(rows.val, condition).answers, metric) for condition in conditions]
    return panel_summary(scores, metric)


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
