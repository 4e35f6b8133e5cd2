"""The interface of all methods: fit to the training rows, then answer for records under a condition.

To add a method, write a module, a registered dataclass in config/schema/model.py and conf/method/<name>.yaml.
The module has two functions:

    fit(config, folder, pipeline, rows, logger, callbacks) -> FitInfo
        Train, save to the run folder, and return what run.json reports: seconds, validation scores, counts. Methods
        that train with Lightning add `callbacks` to the trainer; the others ignore them.
    load(config, folder, pipeline, rows) -> Predictor
        Return the trained predictor. Raise UserError if the folder has none.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType

import numpy as np

from ..config.schema import PARTS, Config
from ..corruption.conditions import Condition
from ..data.record import Record
from ..pipeline.pipeline import Trace

UNTRAINED = tuple(kind for kind, part in PARTS["model"].items() if not part.trained)
"""Kinds of model without training: they load without a run folder and only query a language model."""


@dataclass(frozen=True)
class Prediction:
    """Answers for records, in the order of the records.

    `probabilities` has shape (records, classes), in the order of the target's classes, or is None if the method has
    none. `traces` are the texts of a text method after each step of the pipeline. `unparsed` is true for each answer
    that replaces a missing answer of a language model, and None for other methods.
    """

    answers: list[str] | list[float]
    probabilities: np.ndarray | None = None
    traces: list[Trace] | None = None
    unparsed: list[bool] | None = None


Predictor = Callable[[Sequence[Record], Condition], Prediction]
"""Returns answers for records under a condition."""


def method_of(config: Config) -> ModuleType:
    """Return the module that fits and loads the configured kind of model."""
    return PARTS["model"][config.model.kind].load()
