"""Zero-shot answers of the language model, from the reasoning stage, without training."""

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

NO_ANSWER = ""
"""The answer if the language model returned none of the classes; it is no class, so it counts as wrong."""


def fit(config: Config, folder: Path, pipeline: Pipeline, rows: Rows, logger, callbacks=()) -> FitInfo:
    """Score the validation rows; there is nothing to train or save."""
    return validation_info(load(config, folder, pipeline, rows), rows, config)


def validation_info(predictor: Predictor, rows: Rows, config: Config) -> FitInfo:
    """Return the validation scores of a method without training, and their seconds."""
    start = time.perf_counter()
    val = Validation.of_panel(panel_scores(predictor, rows, config))
    return FitInfo({"validate": round(time.perf_counter() - start, 1)}, val)


def load(config: Config, folder: Path, pipeline: Pipeline, rows: Rows) -> Predictor:
    """Return the predictor, which needs no run folder. Raises UserError if the reasoning stage is switched off."""
    if not config.alignment.reasoning:
        raise UserError(
            f"method={config.method} takes its answers from the reasoning stage; set alignment.reasoning=true"
        )

    def predict(records: Sequence[Record], condition: Condition) -> Prediction:
        # Without traces: comparing these answers with those of the language model would compare them with themselves.
        return prediction_of(
            [trace.aligned.prediction for trace in pipeline.transform(records, condition)], rows.target
        )

    return predict


def prediction_of(texts: Sequence[str | None], target: Target) -> Prediction:
    """Convert the predictions of a language model to a Prediction.

    None becomes NO_ANSWER for classes, which counts as wrong, and the best constant of the training rows for numbers.
    Numbers are clipped to the bounds of the training targets, as for every other method.
    """
    if target.kind == "number":
        answers = [
            target.constant if text is None else float(np.clip(float(text), target.low, target.high)) for text in texts
        ]
    else:
        answers = [NO_ANSWER if text is None else text for text in texts]
    return Prediction(answers, unparsed=[text is None for text in texts])
