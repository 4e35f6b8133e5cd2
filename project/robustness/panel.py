"""The validation panel: what every choice is made on, of a method that answers for records."""

from collections.abc import Callable

from ..schema import Config
from ..sources import Rows
from .conditions import validation_conditions
from .scores import SCORES, drop_ratio, score


def panel_scores(predictor: Callable, rows: Rows, config: Config) -> dict[str, float]:
    """The target's metric on the validation rows: `score`, its mean over the panel's conditions; `clean`; and
    `drop_ratio` of the mean corrupted score, where anything is corrupted.

    `predictor` is a methods.Predictor.
    """
    metric = rows.target.metric
    targets = [record.target for record in rows.val]
    found = [score(targets, predictor(rows.val, condition).answers, metric)
             for condition in validation_conditions(config.robustness, rows.modalities)]
    clean, corrupted = found[0], found[1:]
    panel = {"score": sum(found) / len(found), "clean": clean}
    if corrupted:
        mean = sum(corrupted) / len(corrupted)
        panel["drop_ratio"] = float(drop_ratio(clean, mean, SCORES[metric].higher_is_better))
    return panel
