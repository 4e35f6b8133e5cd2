"""Score a predictor on the validation panel."""

from ..config.schema import Config
from ..corruption.conditions import validation_conditions
from ..data.rows import Rows
from ..metrics.panel import panel_summary
from ..metrics.scores import score
from .base import Predictor


def panel_scores(predictor: Predictor, rows: Rows, config: Config) -> dict[str, float]:
    """Return score, clean and drop_ratio of the validation panel; see `panel_summary`."""
    conditions = validation_conditions(config.robustness, rows.modalities)
    targets, metric = [record.target for record in rows.val], rows.target.metric
    scores = [score(targets, predictor(rows.val, condition).answers, metric) for condition in conditions]
    return panel_summary(scores, metric)
