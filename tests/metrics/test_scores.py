"""Scores against hand-computed cases, a reference library and their invariants."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import auc, cohen_kappa_score, f1_score, r2_score
from torchmetrics.functional.classification import multiclass_calibration_error

from project.metrics import scores

LABELS = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), min_size=1, max_size=30)
SHARES = st.floats(0.01, 1)


def test_accuracy_and_chance_count_rows():
    assert scores.score(["a", "b", "b", "c"], ["a", "b", "a", "a"], "accuracy") == 0.5
    assert scores.chance(["a", "b", "b", "c"], "b") == 0.5
    assert scores.chance(["a", "b"], "never tested") == 0


def test_macro_f1_by_hand():
    # a: TP 1, FP 1, FN 0 -> 2/3; b: TP 1, FP 0, FN 1 -> 2/3; z is predicted and never a target.
    assert scores.macro_f1(["a", "b", "b"], ["a", "b", "a"]) == pytest.approx(2 / 3)
    assert scores.macro_f1(["a", "b"], ["a", "z"]) == pytest.approx(0.5)


@given(LABELS)
def test_macro_f1_equals_sklearn_if_all_classes_are_targets(pairs):
    targets, predictions = zip(*pairs, ("a", "a"), ("b", "b"), ("c", "c"), strict=True)
    assert scores.macro_f1(targets, predictions) == pytest.approx(f1_score(targets, predictions, average="macro"))


@given(LABELS, st.randoms())
def test_scores_do_not_depend_on_the_order_of_rows(pairs, random):
    shuffled = random.sample(pairs, len(pairs))
    for score in (partial(scores.score, metric="accuracy"), scores.macro_f1):
        assert score(*zip(*pairs, strict=True)) == pytest.approx(score(*zip(*shuffled, strict=True)))


def test_errors_by_hand():
    assert scores.score([1, 2], [1, 4], "rmse") == pytest.approx(math.sqrt(2))
    assert scores.score([1, math.e], [1, 1], "rmse_log") == pytest.approx(math.sqrt(0.5))
    assert scores.chance([1.0, 3.0], 2.0, "rmse") == 1


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=40))
def test_kappa_equals_sklearn(pairs):
    targets, predictions = map(np.array, zip(*pairs, strict=True))
    kappa = scores.quadratic_kappa(targets, predictions, 4, np.ones((1, len(pairs))))[0]
    reference = cohen_kappa_score(targets, predictions, weights="quadratic", labels=range(4))
    assert kappa == pytest.approx(reference, nan_ok=True)


@given(st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=2, max_size=40))
def test_r_squared_equals_sklearn(pairs):
    targets, predictions = map(np.array, zip(*pairs, strict=True))
    r_squared = scores.r_squared(targets, predictions, np.ones((1, len(pairs))))[0]
    if np.ptp(targets) == 0:
        assert np.isnan(r_squared)
    else:
        assert r_squared == pytest.approx(r2_score(targets, predictions))


@given(st.lists(st.integers(0, 3), min_size=4, max_size=4))
def test_a_weight_of_two_equals_a_repeated_row(counts):
    targets, predictions = np.array([0, 1, 2, 2]), np.array([0, 2, 1, 2])
    repeated = [np.repeat(column, counts) for column in (targets, predictions)]
    if not sum(counts):
        return
    for measure in (partial(scores.quadratic_kappa, classes=3), scores.r_squared):
        weighted = measure(targets, predictions, weights=np.array([counts]))[0]
        assert weighted == pytest.approx(measure(*repeated, weights=np.ones((1, sum(counts))))[0], nan_ok=True)


def test_the_drop_of_an_error_by_hand():
    assert scores.drop_ratio(1.0, 2.0, higher_is_better=False) == 0.5
    assert scores.chance_adjusted_drop(1.0, 2.0, 3.0, higher_is_better=False) == 0.5
    assert math.isnan(scores.chance_adjusted_drop(3.0, 4.0, 3.0, higher_is_better=False))


def test_drop_ratio_by_hand():
    assert scores.drop_ratio(0.8, 0.6) == pytest.approx(0.25)
    assert scores.drop_ratio(0.5, 0.6) == pytest.approx(-0.2)
    assert scores.drop_ratio(2.0, 4.0, higher_is_better=False) == pytest.approx(0.5)
    assert math.isnan(scores.drop_ratio(0.0, 0.5))
    assert math.isnan(scores.drop_ratio(1.0, 0.0, higher_is_better=False))
    np.testing.assert_allclose(scores.drop_ratio([0.8, 0.0], [0.4, 0.1]), [0.5, np.nan])


@given(SHARES)
def test_equal_scores_have_no_drop(score):
    assert scores.drop_ratio(score, score) == 0
    assert scores.drop_ratio(score, score, higher_is_better=False) == 0
    assert scores.chance_adjusted_drop(score, score, score / 2) == 0


@given(SHARES, SHARES)
def test_drop_ratio_is_the_chance_adjusted_drop_at_chance_zero(clean, corrupted):
    assert scores.chance_adjusted_drop(clean, corrupted, 0) == pytest.approx(scores.drop_ratio(clean, corrupted))


def test_chance_adjusted_drop_by_hand():
    assert scores.chance_adjusted_drop(0.8, 0.5, 0.2) == pytest.approx(0.5)
    assert scores.chance_adjusted_drop(0.8, 0.2, 0.2) == pytest.approx(1)
    assert math.isnan(scores.chance_adjusted_drop(0.2, 0.1, 0.2))


def test_calibration_by_hand():
    # Confidence 0.9 twice, one correct: |1 - 1.8| / 3; confidence 0.6, correct: |1 - 0.6| / 3.
    probabilities = [[0.9, 0.1], [0.9, 0.1], [0.4, 0.6]]
    assert scores.expected_calibration_error([0, 1, 1], probabilities) == pytest.approx(1.2 / 3)
    assert scores.expected_calibration_error([0, 1], [[1, 0], [0, 1]]) == 0
    assert scores.expected_calibration_error([-1, -1], [[1, 0], [0, 1]]) == 1


def test_calibration_agrees_with_torchmetrics():
    generator = np.random.default_rng(0)
    probabilities = generator.dirichlet([0.5] * 4, size=500)
    targets = generator.integers(4, size=500)
    reference = multiclass_calibration_error(torch.tensor(probabilities), torch.tensor(targets), 4, n_bins=15)
    assert scores.expected_calibration_error(targets, probabilities) == pytest.approx(float(reference), abs=1e-6)


def test_reliability_by_hand():
    # Three bins: the lowest is empty, 0.6 is correct in one of two rows, 0.9 in both.
    probabilities = [[0.6, 0.4], [0.4, 0.6], [0.9, 0.1], [0.1, 0.9]]
    rows, confidence, accuracy = scores.reliability([0, 0, 0, 1], probabilities, bins=3)
    assert rows.tolist() == [0, 2, 2]
    np.testing.assert_allclose(confidence, [np.nan, 0.6, 0.9])
    np.testing.assert_allclose(accuracy, [np.nan, 0.5, 1])


def test_area_by_hand():
    assert scores.area_under_curve([0, 0.5, 1], [1, 0.5, 0.5]) == pytest.approx(0.625)
    assert scores.area_under_curve([0, 0.4], [0.7, 0.7]) == pytest.approx(0.7)
    np.testing.assert_allclose(scores.area_under_curve([0, 1], [[1, 0], [1, 1]]), [0.5, 1])
    with pytest.raises(ValueError, match=r"levels=\[0.1, 0.5\]: levels must rise from 0"):
        scores.area_under_curve([0.1, 0.5], [1, 1])


@given(st.lists(SHARES, min_size=2, max_size=6))
def test_area_equals_sklearn(values):
    levels = np.arange(len(values)) / 10
    assert scores.area_under_curve(levels, values) == pytest.approx(auc(levels, values) / levels[-1])


@given(st.lists(SHARES, min_size=2, max_size=6))
def test_area_lies_between_the_extremes(values):
    area = scores.area_under_curve(np.arange(len(values)) / 10, values)
    assert min(values) - 1e-9 <= area <= max(values) + 1e-9


def test_effective_robustness_by_hand():
    # The baseline shifted by 0.1 to the same clean score is 0.9, 0.7, 0.5: the gains are 0, 0.1, 0.3.
    robustness = scores.effective_robustness([0, 0.5, 1], [0.9, 0.8, 0.8], [0.8, 0.6, 0.4])
    assert robustness == pytest.approx((0.05 + 0.2) / 2)
    assert scores.effective_robustness([0, 1], [2.0, 3.0], [1.0, 4.0], higher_is_better=False) == pytest.approx(1)
    np.testing.assert_allclose(scores.effective_robustness([0, 1], [[1, 1], [1, 0]], [[1, 0], [1, 0]]), [0.5, 0])


@given(st.lists(SHARES, min_size=3, max_size=3), st.lists(SHARES, min_size=3, max_size=3), st.floats(-1, 1))
def test_effective_robustness_does_not_depend_on_the_clean_score(method, baseline, shift):
    levels = [0, 0.5, 1]
    robustness = scores.effective_robustness(levels, method, baseline)
    shifted = scores.effective_robustness(levels, np.add(method, shift), baseline)
    assert shifted == pytest.approx(robustness) and scores.effective_robustness(levels, method, method) == 0
    assert scores.effective_robustness(levels, baseline, method) == pytest.approx(-robustness)


def test_mean_corruption_error_by_hand():
    # 0.6 / 1.2 under a corruption with two levels, 0.3 / 0.2 under one with a single level.
    error = scores.mean_corruption_error([[0.2, 0.4], [0.3]], [[0.4, 0.8], [0.2]])
    assert error == pytest.approx((0.5 + 1.5) / 2)
    assert scores.mean_corruption_error([[0.2, 0.4]], [[0.2, 0.4]]) == 1
    assert math.isnan(scores.mean_corruption_error([[0.2]], [[0.0]]))
    np.testing.assert_allclose(scores.mean_corruption_error([[[0.1], [0.2]]], [[[0.2], [0.2]]]), [0.5, 1])


def test_breakdown_by_hand():
    assert scores.breakdown_level([0.1, 0.3, 0.5], [0.0, 0.1, 0.3], 0.2) == pytest.approx(0.4)
    assert scores.breakdown_level([0.5], [0.2], 0.1) == pytest.approx(0.25)
    assert scores.breakdown_level([0.1, 0.3, 0.5], [0.3, 0.0, 0.3], 0.3) == pytest.approx(0.1)
    assert scores.breakdown_level([0.1, 0.9], [-0.1, 0.09], 0.1) == math.inf
    assert math.isnan(scores.breakdown_level([0.1], [np.nan], 0.1))
    many = scores.breakdown_level([0.1, 0.5], [[0.2, 0.3], [0.0, 0.2], [0.0, 0.0], [np.nan, 0.2]], 0.1)
    np.testing.assert_allclose(many, [0.05, 0.3, np.inf, np.nan])
    with pytest.raises(ValueError, match=r"levels=\[0.5, 0.1\]: levels must rise and be positive"):
        scores.breakdown_level([0.5, 0.1], [0.1, 0.2], 0.1)


@given(st.lists(st.floats(-0.5, 1), min_size=1, max_size=6), st.floats(0.01, 0.5), st.floats(0.01, 0.5))
def test_a_higher_threshold_never_lowers_the_breakdown_level(drops, threshold, increase):
    levels = np.arange(1, len(drops) + 1) / 10
    lower = scores.breakdown_level(levels, drops, threshold)
    assert lower <= scores.breakdown_level(levels, drops, threshold + increase) + 1e-9
