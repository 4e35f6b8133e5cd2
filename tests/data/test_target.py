"""Targets: classes are sorted, numbers are standardized, and constant targets are refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from project.data.record import Record
from project.data.target import Target, class_target, number_target
from project.errors import UserError

NUMBERS = st.lists(st.floats(0.01, 1e6), min_size=2, max_size=30).filter(lambda values: np.ptp(values) > 1e-3)


def rows(targets):
    return [Record(str(index), str(index), text="t", target=target) for index, target in enumerate(targets)]


def test_classes_are_sorted_and_the_constant_prediction_is_the_majority():
    target = class_target("class", {"b", "a", "c"}, rows(["b", "b", "a"]), "d")
    assert (target.classes, target.constant, target.metric) == (("a", "b", "c"), "b", "accuracy")
    assert [target.label(name) for name in ("a", "c", "unknown")] == [0, 2, -1]


def test_ordinal_classes_are_sorted_as_numbers():
    assert class_target("ordinal", {"10", "9", "-1"}, rows(["9"]), "d").classes == ("-1", "9", "10")
    with pytest.raises(UserError, match="'many'"):
        class_target("ordinal", {"1", "many"}, rows(["1"]), "d")


@pytest.mark.parametrize("log", [False, True])
@given(values=NUMBERS)
def test_labels_of_numbers_have_mean_0_and_standard_deviation_1(log, values):
    target = number_target(rows(values), log, "d")
    labels = [target.label(value) for value in values]
    assert np.mean(labels) == pytest.approx(0, abs=1e-6) and np.std(labels) == pytest.approx(1, abs=1e-6)
    assert (target.low, target.high) == (min(values), max(values))
    assert target.metric == ("rmse_log" if log else "rmse")


def test_the_constant_prediction_of_a_number_is_the_mean_or_geometric_mean():
    assert number_target(rows([1.0, 3.0]), False, "d").constant == 2
    assert number_target(rows([1.0, 100.0]), True, "d").constant == pytest.approx(10)


def test_a_constant_target_and_a_logarithm_of_0_are_refused():
    with pytest.raises(UserError, match="single class 'a'"):
        class_target("class", {"a"}, rows(["a"]), "d")
    with pytest.raises(UserError, match="always 3"):
        number_target(rows([3.0, 3.0]), False, "d")
    with pytest.raises(UserError, match="row 1 is 0"):
        number_target(rows([3.0, 0.0]), True, "d")


def test_labels_use_the_logarithm_only_if_log_is_set():
    assert Target("number", 0.0, mean=2, scale=4).label(10) == 2
    assert Target("number", 0.0, log=True, mean=0, scale=1).label(np.e) == pytest.approx(1)
