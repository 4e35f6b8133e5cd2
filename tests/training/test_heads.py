"""Losses, probabilities and answers for classes, ordered classes and numbers."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from project.data.target import Target
from project.errors import UserError
from project.training import heads

CLASSES = Target("class", "a", ("a", "b", "c"))
ORDERED = Target("ordinal", "0", ("0", "1", "2", "3"))
NUMBER = Target("number", 5.0, low=0.0, high=20.0, mean=10.0, scale=4.0)
LOG = Target("number", 5.0, log=True, low=1.0, high=1000.0, mean=2.0, scale=1.0)


def test_a_head_has_one_logit_per_class_or_threshold_or_one_for_a_number():
    assert [
        heads.num_logits(CLASSES, "class"),
        heads.num_logits(ORDERED, "class"),
        heads.num_logits(ORDERED, "ordinal"),
        heads.num_logits(NUMBER, "class"),
    ] == [3, 4, 3, 1]


HEADS = [(CLASSES, "class"), (ORDERED, "class"), (ORDERED, "ordinal"), (NUMBER, "class")]


@pytest.mark.parametrize(("target", "kind"), HEADS)
def test_the_mean_of_the_row_losses_is_the_batch_loss(target, kind):
    logits, labels = torch.randn(6, heads.num_logits(target, kind)), torch.tensor([0, 1, 2, 0, 1, 2])
    losses = heads.loss(logits, labels, target, kind, per_row=True)
    assert losses.shape == (6,)
    torch.testing.assert_close(losses.mean(), heads.loss(logits, labels, target, kind))


@pytest.mark.parametrize(("target", "kind"), HEADS)
def test_symmetric_kl_is_symmetric_positive_and_0_between_equal_predictions(target, kind):
    first, second = torch.randn(2, 5, heads.num_logits(target, kind))
    divergence = heads.symmetric_kl(first, second, target, kind)
    assert divergence > 0 and heads.symmetric_kl(first, first, target, kind) == 0
    torch.testing.assert_close(divergence, heads.symmetric_kl(second, first, target, kind))


def test_symmetric_kl_of_classes_is_half_the_sum_of_both_divergences():
    first, second = torch.randn(2, 5, 3)
    p, q = (torch.distributions.Categorical(logits=logits) for logits in (first, second))
    both = torch.distributions.kl_divergence(p, q) + torch.distributions.kl_divergence(q, p)
    torch.testing.assert_close(heads.symmetric_kl(first, second, CLASSES, "class"), both.mean() / 2)
    p, q = (torch.distributions.Bernoulli(logits=logits) for logits in (first, second))
    both = torch.distributions.kl_divergence(p, q) + torch.distributions.kl_divergence(q, p)
    torch.testing.assert_close(heads.symmetric_kl(first, second, ORDERED, "ordinal"), both.mean() / 2)


def test_an_ordinal_head_on_classes_without_order_raises_an_error():
    with pytest.raises(UserError, match="data.task=ordinal"):
        heads.num_logits(CLASSES, "ordinal")


@given(arrays(np.float32, (5, 3), elements=st.floats(-20, 20, width=32)))
def test_the_probabilities_of_an_ordinal_head_add_up_to_1(logits):
    probabilities = heads.probabilities(torch.tensor(logits), ORDERED, "ordinal")
    assert probabilities.shape == (5, 4) and (probabilities >= -1e-12).all()
    np.testing.assert_allclose(probabilities.sum(1), 1)


def test_an_ordinal_head_answers_the_number_of_passed_thresholds():
    logits = torch.tensor([[-9.0, -9, -9], [9, -9, -9], [9, 9, -9], [9, 9, 9]])
    assert heads.answers(logits, ORDERED, "ordinal") == ["0", "1", "2", "3"]
    labels = torch.tensor([0, 1, 2, 3])
    assert (
        heads.loss(logits, labels, ORDERED, "ordinal") < 0.001 < heads.loss(logits, labels.flip(0), ORDERED, "ordinal")
    )


def test_the_loss_of_an_ordinal_head_grows_with_the_distance_of_the_mistake():
    near, far = (heads.loss(torch.tensor([[9.0, 9, 9]]), torch.tensor([label]), ORDERED, "ordinal") for label in (2, 0))
    assert far > 2 * near


def test_a_number_is_answered_in_the_targets_unit_within_the_training_bounds():
    assert heads.answers(torch.tensor([[0.0], [-1], [99], [-99]]), NUMBER, "class") == [10, 6, 20, 0]
    assert heads.answers(torch.tensor([[0.0], [9999], [-9999]]), LOG, "class") == pytest.approx([np.exp(2), 1000, 1])
    assert heads.probabilities(torch.zeros(2, 1), NUMBER, "class") is None


def test_the_loss_of_a_number_is_the_squared_error_of_the_standardised_label():
    labels = torch.tensor([NUMBER.label(14.0), NUMBER.label(10.0)])
    assert heads.loss(torch.tensor([[0.0], [0.0]]), labels, NUMBER, "class").item() == pytest.approx(0.5)


@given(arrays(np.float32, (4, 3), elements=st.floats(-20, 20, width=32)))
def test_a_class_head_answers_the_largest_logit(logits):
    answers = heads.answers(torch.tensor(logits), CLASSES, "class")
    assert all(row[CLASSES.classes.index(name)] >= row.max() - 1e-6 for row, name in zip(logits, answers, strict=True))
