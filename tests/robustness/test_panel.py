"""The validation panel of a predictor, on planted answers."""

import pytest

from project.methods import Prediction
from project.record import Record
from project.robustness.panel import panel_scores
from project.schema import Config, Robustness
from project.sources import Rows
from project.target import Target


def planted(records, condition):
    """Right on all rows, and under noise on those whose number is a multiple of the noise level in tenths."""
    step = round(10 * condition.level) or 1
    return Prediction([record.target if int(record.id) % step == 0 else "" for record in records])


@pytest.mark.parametrize(("levels", "expected"), [
    ([0.2, 0.5], {"score": (1 + 0.5 + 0.2) / 3, "clean": 1.0, "drop_ratio": 0.65}), ([], {"score": 1.0, "clean": 1.0})])
def test_the_score_is_averaged_over_the_panel(levels, expected):
    val = [Record(str(index), "g", text="a", target="x") for index in range(20)]
    rows = Rows([], val, [], Target("class", "x", ("x", "y")), ("text",))
    assert panel_scores(planted, rows, Config(robustness=Robustness(val_levels=levels))) == pytest.approx(expected)


def test_an_error_rises_with_noise():
    val = [Record(str(index), "g", text="a", target=float(index)) for index in range(4)]
    rows = Rows([], val, [], Target("number", 1.5, low=0.0, high=3.0), ("text",))
    panel = panel_scores(lambda records, condition: Prediction([record.target + 1 + 3 * (condition.level > 0)
                                                                for record in records]), rows, Config())
    assert panel == pytest.approx({"score": 2.5, "clean": 1.0, "drop_ratio": 0.75})
