"""The cluster bootstrap: group-wise resampling, pairing over conditions, coverage of intervals."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from project.metrics.bootstrap import group_weights, interval, p_value, resampled_mean
from project.metrics.scores import drop_ratio

GROUPS = st.lists(st.sampled_from("abcdef"), min_size=2, max_size=30).filter(lambda names: len(set(names)) > 1)


@given(GROUPS, st.integers(0, 5))
def test_each_resample_draws_as_many_groups_as_the_data_have(groups, seed):
    weights = group_weights(groups, 20, seed)
    names, first = np.unique(groups, return_index=True)
    assert weights.shape == (20, len(groups))
    assert (weights[:, first].sum(axis=1) == len(names)).all()
    for name, index in zip(names, first, strict=True):
        same = np.array(groups) == name
        assert (weights[:, same] == weights[:, [index]]).all()


@given(GROUPS, st.randoms())
def test_weights_do_not_depend_on_the_order_of_rows(groups, random):
    order = random.sample(range(len(groups)), len(groups))
    shuffled = [groups[index] for index in order]
    np.testing.assert_array_equal(group_weights(groups, 10, 0)[:, order], group_weights(shuffled, 10, 0))


def test_equal_seeds_give_equal_weights_and_others_different_ones():
    groups = list("abcdefgh")
    np.testing.assert_array_equal(group_weights(groups, 50, 3), group_weights(groups, 50, 3))
    assert (group_weights(groups, 50, 3) != group_weights(groups, 50, 4)).any()


def test_resampled_mean_by_hand():
    weights = np.array([[1.0, 1, 1, 1], [2, 2, 0, 0], [0, 0, 2, 2]])
    correct = np.array([1, 0, 1, 1])
    np.testing.assert_allclose(resampled_mean(correct, weights), [0.75, 0.5, 1])
    both = np.stack([correct, 1 - correct], axis=1)
    np.testing.assert_allclose(resampled_mean(both, weights)[:, 1], [0.25, 0.5, 0])


@settings(max_examples=30)
@given(st.lists(st.booleans(), min_size=2, max_size=60))
def test_the_interval_contains_the_estimate(correct):
    weights = group_weights(range(len(correct)), 500, 0)
    low, high = interval(resampled_mean(correct, weights))
    assert 0 <= low <= np.mean(correct) <= high <= 1


def test_intervals_widen_when_rows_of_a_group_are_equal():
    correct = np.repeat(np.random.default_rng(0).integers(0, 2, 20), 10)
    by_row = interval(resampled_mean(correct, group_weights(range(200), 1000, 0)))
    by_group = interval(resampled_mean(correct, group_weights(np.repeat(np.arange(20), 10), 1000, 0)))
    assert by_group[1] - by_group[0] > 2 * (by_row[1] - by_row[0])


def test_the_interval_covers_the_true_value_at_about_the_nominal_rate():
    generator = np.random.default_rng(0)
    weights = group_weights(range(100), 400, 0)
    bounds = [interval(resampled_mean(generator.random(100) < 0.7, weights)) for _ in range(300)]
    assert 0.89 <= np.mean([low <= 0.7 <= high for low, high in bounds]) <= 0.99


def test_a_paired_difference_of_equal_draws_is_zero():
    correct = np.random.default_rng(0).integers(0, 2, 80)
    weights = group_weights(range(80), 300, 0)
    draws = resampled_mean(correct, weights)
    assert interval(draws - resampled_mean(correct, weights)) == (0, 0)
    assert interval(drop_ratio(draws, draws)) == (0, 0)


def test_the_interval_is_nan_for_one_group_or_too_many_nan_draws():
    assert np.isnan(interval(resampled_mean([1, 0], group_weights(["a", "a"], 100, 0)))).all()
    draws = np.linspace(0, 1, 1000)
    draws[:20] = np.nan
    assert not np.isnan(interval(draws)).any()
    draws[:30] = np.nan
    assert np.isnan(interval(draws)).all()


def test_the_bootstrap_of_a_usual_study_takes_under_two_seconds():
    started = time.perf_counter()
    weights = group_weights(np.arange(100) // 2, 2000, 0)
    draws = resampled_mean(np.ones((100, 15)), weights)
    for column in draws.T:
        interval(column)
    assert time.perf_counter() - started < 2


@pytest.mark.parametrize("coverage", [0.5, 0.9])
def test_coverage_sets_the_percentiles(coverage):
    low, high = interval(np.linspace(0, 1, 1001), coverage)
    assert (low, high) == pytest.approx(((1 - coverage) / 2, (1 + coverage) / 2))


def test_p_values_by_hand():
    assert p_value([-1.0, *[1.0] * 98]) == pytest.approx(2 * 2 / 100)
    assert p_value([1.0] * 99) == pytest.approx(2 / 100)
    assert p_value([0.0] * 99) == p_value([-1.0, 1.0] * 50) == 1
    assert np.isnan(p_value([np.nan] * 5 + [1.0] * 5))


@given(st.lists(st.floats(-1, 1), min_size=50, max_size=200))
def test_p_values_do_not_depend_on_the_sign(draws):
    assert p_value(draws) == p_value([-draw for draw in draws])


def test_p_values_are_about_uniform_without_a_difference():
    generator = np.random.default_rng(0)
    weights = group_weights(range(100), 400, 0)
    p_values = np.array([p_value(resampled_mean(generator.normal(size=100), weights)) for _ in range(400)])
    assert 0.02 <= (p_values < 0.05).mean() <= 0.09 and 0.4 <= (p_values < 0.5).mean() <= 0.6


def test_infinite_draws_give_an_infinite_end():
    assert interval([0.1] * 50 + [np.inf] * 50) == (0.1, np.inf)
    assert interval([np.inf] * 100) == (np.inf, np.inf)
