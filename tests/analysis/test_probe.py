"""The probe: folds of whole groups, no leak between folds, and texts without words."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from project.analysis.probe import FOLDS, cross_val_row_scores, group_folds, score_difference, text_probe
from project.metrics.bootstrap import group_weights


@settings(max_examples=30)
@given(st.lists(st.text(max_size=3), min_size=1, max_size=40), st.randoms())
def test_folds_contain_whole_groups_in_any_order_of_rows(groups, random):
    fold = dict(zip(groups, group_folds(groups).tolist(), strict=True))
    assert [fold[name] for name in groups] == group_folds(groups).tolist()
    counts = np.bincount(list(fold.values()), minlength=FOLDS)
    assert counts.max() - counts.min() <= 1
    shuffled = random.sample(groups, len(groups))
    assert [fold[name] for name in shuffled] == group_folds(shuffled).tolist()


def test_a_probe_is_not_fitted_to_the_group_that_it_predicts():
    """Each group has its own word and class: a probe fitted to the group would be correct."""
    groups = [f"g{index // 2}" for index in range(40)]
    texts = [f"word{group}" for group in groups]
    targets = ["AB"[int(group[1:]) % 2] for group in groups]
    [values] = cross_val_row_scores(texts, targets, groups, [texts], "accuracy")
    assert values.mean() < 0.7
    [leaked] = cross_val_row_scores(texts, targets, groups, [texts], "accuracy", (texts, targets))
    assert leaked.mean() == 1


def test_views_are_predicted_by_a_probe_fitted_to_the_items():
    texts = [f"{word} thing" for word in ("red", "blue") * 10]
    targets, groups = ["A", "B"] * 10, [str(index) for index in range(20)]
    swapped = [text.replace("red", "x").replace("blue", "red").replace("x", "blue") for text in texts]
    correct, wrong = cross_val_row_scores(texts, targets, groups, [texts, swapped], "accuracy")
    assert (correct.mean(), wrong.mean()) == (1, 0)
    value, low, high = score_difference(correct, wrong, group_weights(groups, 50, 0), "accuracy")
    assert (value, low, high) == (1, 1, 1)


def test_a_single_group_gives_nan():
    [values] = cross_val_row_scores(["a", "b"], ["A", "B"], ["g", "g"], [["a", "b"]], "accuracy")
    assert np.isnan(values).all()


@pytest.mark.parametrize("texts, targets", [(["!", "?"], ["A", "A"]), (["a", "b"], ["A", "A"])])
def test_texts_of_one_class_or_without_words_predict_the_most_frequent_class(texts, targets):
    assert text_probe(texts, targets, "accuracy")(["a", "!"]) == ["A", "A"]


def test_predicted_numbers_stay_within_the_training_targets():
    predict = text_probe(["low", "high"] * 5, [1.0, 1000.0] * 5, "rmse_log")
    assert all(1 <= answer <= 1000 for answer in predict(["high " * 50, "low", "other"]))
    assert text_probe(["!", "?"], [1.0, 3.0], "rmse")(["a"]) == [2]


def test_a_larger_error_is_a_loss():
    weights = group_weights(list("abcd"), 20, 0)
    value, low, high = score_difference(np.ones(4), np.full(4, 9.0), weights, "rmse")
    assert (value, low, high) == (2, 2, 2)
