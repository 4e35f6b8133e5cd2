"""The validation panel has the same conditions and formulas for every method."""

import pytest

from project.config.compose import load_config
from project.data.record import Record
from project.data.rows import Rows
from project.data.target import Target
from project.methods.base import Prediction
from project.methods.validation import panel_scores
from project.metrics.panel import panel_summary


def test_a_method_that_fails_under_noise_has_a_drop_ratio():
    config = load_config(["robustness.val_levels=[0.3,0.6]"])
    val = [Record(str(index), "g", text="a b", target="xy"[index % 2]) for index in range(4)]
    rows = Rows([], val, [], Target("class", "x", ("x", "y")), ("text",))
    conditions = []

    def predictor(records, condition):
        conditions.append(str(condition))
        answers = [record.target for record in records]
        return Prediction(answers if condition.level < 0.5 else ["x"] * len(records))

    scores = panel_scores(predictor, rows, config)
    assert conditions == ["clean", "noisy(text, 0.3)", "noisy(text, 0.6)"]
    assert scores == {"score": pytest.approx(2.5 / 3), "clean": 1.0, "drop_ratio": pytest.approx(0.25)}


def test_the_drop_ratio_of_an_error_metric_has_the_opposite_sign_and_needs_noise():
    assert panel_summary([1.0, 2.0], "rmse") == {"score": 1.5, "clean": 1.0, "drop_ratio": 0.5}
    assert panel_summary([0.7], "accuracy") == {"score": 0.7, "clean": 0.7}
