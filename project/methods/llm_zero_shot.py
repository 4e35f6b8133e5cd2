"""The language model's own answer, out of the reasoning stage, with nothing learned on top of it."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..config.schema import Config
from ..corruption.conditions import Condition
from ..data.record import Record
from ..data.rows import Rows
from ..data.target import Target
from ..errors import UserError
from ..pipeline.pipeline import Pipeline
from ..training.fit_info import FitInfo, Validation
from .base import Prediction, Predictor
from .validation import panel_scores

UNKNOWN = ""
"""The answer where the language model gave none of the classes: it is no class, and so counts as wrong."""


def fit(config: Config, folder: Path, pipeline: Pipeline, rows: Rows, logger) -> FitInfo:
    """Nothing is learned and nothing kept; the validation rows are scored, as every method's are."""
    return validation_info(load(config, folder, pipeline, rows), rows, config)


def validation_info(predictor: Predictor, rows: Rows, config: Config) -> FitInfo:
    """Return the validation scores of a method without training, and their seconds."""
    start = time.perf_counter()
    val = Validation.of_panel(panel_scores(predictor, rows, config))
    return FitInfo({"validate": round(time.perf_counter() - start, 1)}, val)


def load(config: Config, folder: Path, pipeline: Pipeline, rows: Rows) -> Predictor:
    """The predictor, which needs no run folder. Raises UserError where the reasoning stage is switched off."""
    if not config.alignment.reasoning:
        raise UserError(
            f"method={config.method} takes its answers from the reasoning stage; set alignment.reasoning=true"
        )

    def predict(records: Sequence[Record], condition: Condition) -> Prediction:
        # No traces go along: a comparison of the answers with the language model's would compare them with themselves.
        return prediction_of(
            [trace.aligned.prediction for trace in pipeline.transform(records, condition)], rows.target
        )

    return predict


def prediction_of(said: Sequence[str | None], target: Target) -> Prediction:
    """A language model's own predictions as a method's answers.

    Where it gave none, a class is UNKNOWN, which counts as wrong, and a number is the best constant of the training
    rows. Numbers are kept within the bounds of the training targets, as those of every other method are.
    """
    if target.kind == "number":
        answers = [
            target.constant if word is None else float(np.clip(float(word), target.low, target.high)) for word in said
        ]
    else:
        answers = [UNKNOWN if word is None else word for word in said]
    return Prediction(answers, unparsed=[word is None for word in said])
