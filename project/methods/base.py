"""What every method offers: it is fitted to the training rows, and then answers for records under a condition.

Adding a method: one module with `fit` and `load`, one dataclass in schema.KINDS, one line in MODULES, one
conf/model/<name>.yaml, and one conf/method/<name>.yaml that chooses it.
"""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType

import numpy as np

from ..config.schema import Config
from ..corruption.conditions import Condition
from ..data.record import Record
from ..pipeline.pipeline import Trace

MODULES = {
    "transformer": "project.methods.text_transformer",
    "fusion": "project.methods.late_fusion",
    "boosting": "project.methods.gradient_boosting",
    "llm": "project.methods.llm_zero_shot",
    "mllm": "project.methods.multimodal_llm",
}
"""The module of each kind of model. It has

    fit(config, folder, pipeline, rows, logger) -> FitInfo    train, save to the run folder, and return what run.json
                                                              reports: seconds, validation scores, counts
    load(config, folder, pipeline, rows) -> Predictor         return the trained predictor; UserError if there is none
"""

UNTRAINED = ("llm", "mllm")
"""Kinds that learn nothing: they load without a run folder, and all that they do is ask a language model."""


@dataclass(frozen=True)
class Prediction:
    """Answers for some records, in their order.

    `probabilities` has shape (records, classes), in the order of the target's classes, and is None where the method
    gives none. `traces` are the texts that a text method read, at every arrow. `unparsed` tells of each answer whether
    it only stands in for one that a language model did not give, and is None for other methods.
    """

    answers: list[str] | list[float]
    probabilities: np.ndarray | None = None
    traces: list[Trace] | None = None
    unparsed: list[bool] | None = None


Predictor = Callable[[Sequence[Record], Condition], Prediction]
"""Answers for records as they are seen under a condition."""


def method_of(config: Config) -> ModuleType:
    """The module that fits and loads the configured kind of model."""
    return importlib.import_module(MODULES[config.model.kind])
