"""What often wins on tables: boosted trees on table, text and image features, or a linear model where it is better.

A few settings of either are tried, and the best on the validation panel is kept. scikit-learn has no format of its own
that is safe to load, and its trees are private classes, so the run folder names the setting and `load` fits it again:
training rows and seed determine it. That it answers the validation rows as it did in training is checked.
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
from ..training import heads as head
from ..training.fit import device_of
from ..training.fit_info import FitInfo, Validation
from .base import Prediction
from .image_features import check_image, has_pixels
from .raw_features import Features, Raw, raw_values
from .tabular_features import fit_columns
from .validation import panel_scores

CHOSEN = "boosting.json"
"""The file of a run folder that names the setting and its answers to the clean validation rows."""


@dataclass(frozen=True)
class Setting:
    """Trees with a learning rate and a least size of leaves, or a linear model whose penalty weighs 1 / `strength`."""

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
"""All that are tried, on any data."""
ROUNDS = 100
"""Trees of a class, or of a number."""


def fit(config: Config, folder: Path, pipeline: Pipeline, rows: Rows, logger) -> FitInfo:
    """Try every setting on the raw training rows, and name the best in the run folder; no text of the pipeline is read.

    `trials` tells how many were tried, and `val` is of the best.
    """
    start = time.perf_counter()
    data = FeatureSplits(config, rows)
    conditions = validation_conditions(config.robustness, rows.modalities)
    seen = {condition: data.raw(rows.val, condition) for condition in conditions}
    sign = 1 if SCORES[rows.target.metric].higher_is_better else -1
    tried = []
    for trial, setting in enumerate(SETTINGS):
        learned = FittedModel(setting, data)
        found = panel_scores(lambda records, condition, learned=learned: learned(seen[condition]), rows, config)
        tried.append((sign * found["score"], -trial, setting, found, learned))
        if logger:
            logger.log_metrics({f"val/{name}": value for name, value in found.items()}, step=trial)
    _, _, setting, found, learned = max(tried, key=lambda item: item[:2])
    kept = {"setting": asdict(setting), "answers": learned(seen[CLEAN]).answers}
    (folder / CHOSEN).write_text(json.dumps(kept, ensure_ascii=False), encoding="utf-8")
    return FitInfo(
        {"train": round(time.perf_counter() - start, 3)},
        Validation.of_panel(found),
        extra={
            "trials": len(tried),
            "setting": {name: value for name, value in asdict(setting).items() if value is not None},
        },
    )


def load(config: Config, folder: Path, pipeline: Pipeline, rows: Rows) -> "BoostingPredictor":
    """The chosen setting of a run folder, fitted again.

    Raises UserError where there is none, or where it no longer answers as it did.
    """
    command = f"python -m project train experiment={config.experiment} method={config.method} seed={config.seed}"
    if not (folder / CHOSEN).is_file():
        raise UserError(f"{folder} holds no trained model; train it first: {command}")
    kept = json.loads((folder / CHOSEN).read_text(encoding="utf-8"))
    data = FeatureSplits(config, rows)
    boosted = BoostingPredictor(data, FittedModel(Setting(**kept["setting"]), data))
    answers = boosted(rows.val, CLEAN).answers
    same = np.allclose(answers, kept["answers"]) if rows.target.kind == "number" else answers == kept["answers"]
    if not same:
        raise UserError(
            f"{folder}: fitted again, {CHOSEN} answers the validation rows otherwise than in training: "
            f"the rows or scikit-learn changed; delete the folder and train again: {command}"
        )
    return boosted


class FeatureSplits:
    """The training rows as numbers, and how other records become the like."""

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
        """Records as they are seen under a condition."""
        seen = [corrupt(record, condition, self.donors) for record in records]
        return raw_values(seen, records, self.columns, self.images, self.device)


class FittedModel:
    """One setting, fitted to the training rows; the same data give the same model."""

    def __init__(self, setting: Setting, data: FeatureSplits):
        self._target = data.target
        self._inputs = data.features.trees if setting.kind == "trees" else data.features.linear
        number = data.target.kind == "number"
        if setting.kind == "trees":
            trees = HistGradientBoostingRegressor if number else HistGradientBoostingClassifier
            self._model = trees(
                learning_rate=setting.learning_rate,
                min_samples_leaf=setting.leaf,
                max_iter=ROUNDS,
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
        """The answers; a class that no training row has is never one, and has probability 0."""
        inputs = self._inputs(rows)
        if self._target.kind == "number":
            found = torch.from_numpy(self._model.predict(inputs))[:, None]
            return Prediction(head.answers(found, self._target, "class"))
        probabilities = np.zeros((inputs.shape[0], len(self._target.classes)))
        probabilities[:, self._model.classes_] = self._model.predict_proba(inputs)
        return Prediction([self._target.classes[index] for index in probabilities.argmax(1)], probabilities)


class BoostingPredictor:
    """Answers from the raw modalities; their order has no part in it, so that another one changes no answer."""

    def __init__(self, data: FeatureSplits, learned: FittedModel):
        self._data, self._learned = data, learned

    def __call__(self, records: Sequence[Record], condition: Condition) -> Prediction:
        """The answers for records under a condition."""
        return self._learned(self._data.raw(records, condition))
