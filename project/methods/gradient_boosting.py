"""Gradient-boosted trees on table, text and image features, a strong baseline on tables, or a linear model.

A few settings of either kind are compared, and the best on the validation panel is used. scikit-learn has no format
that is safe to load, so the run folder stores only the setting, and `load` fits it again: training rows and seed
determine the model. `load` checks that the refitted model gives the validation answers of training.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, Ridge

from ..config.schema import Config
from ..corruption.conditions import CLEAN, Condition, validation_conditions
from ..data.record import Record
from ..data.rows import Rows
from ..errors import UserError
from ..metrics.scores import SCORES
from ..pipeline.corrupt import corrupt
from ..pipeline.pipeline import Pipeline
from ..training import heads
from ..training.fit import device_of
from ..training.fit_info import FitInfo, Validation
from .base import Prediction
from .image_features import check_image, has_pixels
from .raw_features import Features, Raw, raw_values
from .tabular_features import fit_columns
from .validation import panel_scores

_SETTING_FILE = "boosting.json"
"""The file of a run folder with the best setting and its answers to the clean validation rows."""


@dataclass(frozen=True)
class Setting:
    """Trees with a learning rate and a minimum leaf size, or a linear model with penalty 1 / `strength`."""

    kind: str
    learning_rate: float | None = None
    leaf: int | None = None
    strength: float | None = None


SETTINGS = (
    Setting("trees", 0.1, 20),
    Setting("trees", 0.1, 5),
    Setting("trees", 0.03, 5),
    Setting("linear", strength=1.0),
    Setting("linear", strength=10.0),
    Setting("linear", strength=100.0),
)
"""The settings that are compared, on any data."""
NUM_TREES = 100
"""Trees per class, or of a number."""


def fit(config: Config, folder: Path, pipeline: Pipeline, rows: Rows, logger, callbacks=()) -> FitInfo:
    """Fit every setting on the raw training rows, and save the best one; the pipeline's texts are unused.

    `trials` is the number of settings, and `val` has the scores of the best one.
    """
    start = time.perf_counter()
    data = FeatureSplits(config, rows)
    conditions = validation_conditions(config.robustness, rows.modalities)
    raw_by_condition = {condition: data.raw(rows.val, condition) for condition in conditions}
    sign = 1 if SCORES[rows.target.metric].higher_is_better else -1
    trials = []
    for trial, setting in enumerate(SETTINGS):
        model = FittedModel(setting, data)
        panel = panel_scores(lambda records, condition, model=model: model(raw_by_condition[condition]), rows, config)
        trials.append((sign * panel["score"], -trial, setting, panel, model))
        if logger:
            logger.log_metrics({f"val/{name}": value for name, value in panel.items()}, step=trial)
    _, _, setting, panel, model = max(trials, key=lambda item: item[:2])
    stored = {"setting": asdict(setting), "answers": model(raw_by_condition[CLEAN]).answers}
    (folder / _SETTING_FILE).write_text(json.dumps(stored, ensure_ascii=False), encoding="utf-8")
    return FitInfo(
        {"train": round(time.perf_counter() - start, 3)},
        Validation.of_panel(panel),
        extra={
            "trials": len(trials),
            "setting": {name: value for name, value in asdict(setting).items() if value is not None},
        },
    )


def load(config: Config, folder: Path, pipeline: Pipeline, rows: Rows) -> "BoostingPredictor":
    """Fit the setting of a run folder again.

    Raises UserError if the folder has no setting, or if the validation answers differ from those of training.
    """
    command = f"python -m project train experiment={config.experiment} method={config.method} seed={config.seed}"
    if not (folder / _SETTING_FILE).is_file():
        raise UserError(f"{folder} has no trained model; train it first: {command}")
    stored = json.loads((folder / _SETTING_FILE).read_text(encoding="utf-8"))
    data = FeatureSplits(config, rows)
    predictor = BoostingPredictor(data, FittedModel(Setting(**stored["setting"]), data))
    answers, expected = predictor(rows.val, CLEAN).answers, stored["answers"]
    matches = np.allclose(answers, expected) if rows.target.kind == "number" else answers == expected
    if not matches:
        raise UserError(
            f"{folder}: the model of {_SETTING_FILE}, fitted again, gives other validation answers than in training: "
            f"the rows or scikit-learn changed; delete the folder and train again: {command}"
        )
    return predictor


class FeatureSplits:
    """The features of the training rows, and the conversion of other records to the same features."""

    def __init__(self, config: Config, rows: Rows):
        self.target, self.seed, self.device = rows.target, config.seed, device_of(config.trainer)
        self.columns, self.donors = fit_columns(rows.train), rows.train
        self.images = config.model.image != "none" and any(has_pixels(record.image) for record in rows.train)
        if self.images:
            check_image(config)
        self.train = self.raw(rows.train, CLEAN)
        self.features = Features(self.train, self.columns.sizes, config.seed)
        self.labels = np.array([rows.target.label(record.target) for record in rows.train])

    def raw(self, records: Sequence[Record], condition: Condition) -> Raw:
        """Return the raw features of records under a condition."""
        corrupted = [corrupt(record, condition, self.donors) for record in records]
        return raw_values(corrupted, records, self.columns, self.images, self.device)


class FittedModel:
    """One setting, fitted to the training rows; deterministic for given data."""

    def __init__(self, setting: Setting, data: FeatureSplits):
        self._target = data.target
        self._inputs = data.features.trees if setting.kind == "trees" else data.features.linear
        number = data.target.kind == "number"
        if setting.kind == "trees":
            trees = HistGradientBoostingRegressor if number else HistGradientBoostingClassifier
            self._model = trees(
                learning_rate=setting.learning_rate,
                min_samples_leaf=setting.leaf,
                max_iter=NUM_TREES,
                categorical_features=data.features.categorical,
                early_stopping=False,
                random_state=data.seed,
            )
        elif number:
            self._model = Ridge(alpha=1 / setting.strength, solver="lsqr")
        else:
            self._model = LogisticRegression(C=setting.strength, max_iter=1000)
        self._model.fit(self._inputs(data.train), data.labels if number else data.labels.astype(int))

    def __call__(self, rows: Raw) -> Prediction:
        """Return the answers; a class without training rows has probability 0."""
        inputs = self._inputs(rows)
        if self._target.kind == "number":
            values = torch.from_numpy(self._model.predict(inputs))[:, None]
            return Prediction(heads.answers(values, self._target, "class"))
        probabilities = np.zeros((inputs.shape[0], len(self._target.classes)))
        probabilities[:, self._model.classes_] = self._model.predict_proba(inputs)
        return Prediction([self._target.classes[index] for index in probabilities.argmax(1)], probabilities)


class BoostingPredictor:
    """Answer from the raw modalities. The order of the modalities does not change an answer."""

    def __init__(self, data: FeatureSplits, model: FittedModel):
        self._data, self._model = data, model

    def __call__(self, records: Sequence[Record], condition: Condition) -> Prediction:
        """Return the answers for records under a condition."""
        return self._model(self._data.raw(records, condition))
