"""Logits become losses and answers for classes, ordered classes and numbers."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from project.data.target import Target
from project.errors import UserError
from project.training import heads as head

CLASSES = Target("class", "a", ("a", "b", "c"))
ORDERED = Target("ordinal", "0", ("0", "1", "2", "3"))
NUMBER = Target("number", 5.0, low=0.0, high=20.0, mean=10.0, scale=4.0)
LOG = Target("number", 5.0, log=True, low=1.0, high=1000.0, mean=2.0, scale=1.0)


def test_the_width_is_a_logit_a_class_a_threshold_or_one_number():
    assert [
        head.num_logits(CLASSES, "class"),
        head.num_logits(ORDERED, "class"),
        head.num_logits(ORDERED, "ordinal"),
        head.num_logits(NUMBER, "class"),
    ] == [3, 4, 3, 1]


HEADS = [(CLASSES, "class"), (ORDERED, "class"), (ORDERED, "ordinal"), (NUMBER, "class")]


@pytest.mark.parametrize(("target", "kind"), HEADS)
def test_the_losses_of_the_rows_have_the_batchs_loss_as_their_mean(target, kind):
    logits, labels = torch.randn(6, head.num_logits(target, kind)), torch.tensor([0, 1, 2, 0, 1, 2])
    each = head.loss(logits, labels, target, kind, each=True)
    assert each.shape == (6,)
    torch.testing.assert_close(each.mean(), head.loss(logits, labels, target, kind))


@pytest.mark.parametrize(("target", "kind"), HEADS)
def test_disagreement_is_symmetric_positive_and_0_between_equal_predictions(target, kind):
    first, second = torch.randn(2, 5, head.num_logits(target, kind))
    apart = head.symmetric_kl(first, second, target, kind)
    assert apart > 0 and head.symmetric_kl(first, first, target, kind) == 0
    torch.testing.assert_close(apart, head.symmetric_kl(second, first, target, kind))


def test_disagreement_of_classes_is_half_of_both_divergences():
    first, second = torch.randn(2, 5, 3)
    p, q = (torch.distributions.Categorical(logits=logits) for logits in (first, second))
    both = torch.distributions.kl_divergence(p, q) + torch.distributions.kl_divergence(q, p)
    torch.testing.assert_close(head.symmetric_kl(first, second, CLASSES, "class"), both.mean() / 2)
    p, q = (torch.distributions.Bernoulli(logits=logits) for logits in (first, second))
    both = torch.distributions.kl_divergence(p, q) + torch.distributions.kl_divergence(q, p)
    torch.testing.assert_close(head.symmetric_kl(first, second, ORDERED, "ordinal"), both.mean() / 2)


def test_an_ordinal_head_on_classes_without_order_is_one_line():
    with pytest.raises(UserError, match="data.task=ordinal"):
        head.num_logits(CLASSES, "ordinal")


@given(arrays(np.float32, (5, 3), elements=st.floats(-20, 20, width=32)))
def test_an_ordinal_head_has_probabilities_that_add_up(logits):
    found = head.probabilities(torch.tensor(logits), ORDERED, "ordinal")
    assert found.shape == (5, 4) and (found >= -1e-12).all()
    np.testing.assert_allclose(found.sum(1), 1)


def test_an_ordinal_head_answers_by_how_many_thresholds_are_passed():
    sure = torch.tensor([[-9.0, -9, -9], [9, -9, -9], [9, 9, -9], [9, 9, 9]])
    assert head.answers(sure, ORDERED, "ordinal") == ["0", "1", "2", "3"]
    labels = torch.tensor([0, 1, 2, 3])
    assert head.loss(sure, labels, ORDERED, "ordinal") < 0.001 < head.loss(sure, labels.flip(0), ORDERED, "ordinal")


def test_a_further_mistake_costs_an_ordinal_head_more():
    near, far = (head.loss(torch.tensor([[9.0, 9, 9]]), torch.tensor([label]), ORDERED, "ordinal") for label in (2, 0))
    assert far > 2 * near


def test_a_number_is_answered_in_its_own_unit_and_within_the_training_targets():
    assert head.answers(torch.tensor([[0.0], [-1], [99], [-99]]), NUMBER, "class") == [10, 6, 20, 0]
    assert head.answers(torch.tensor([[0.0], [9999], [-9999]]), LOG, "class") == pytest.approx([np.exp(2), 1000, 1])
    assert head.probabilities(torch.zeros(2, 1), NUMBER, "class") is None


def test_a_number_s_loss_is_the_squared_error_of_the_standardised_label():
    labels = torch.tensor([NUMBER.label(14.0), NUMBER.label(10.0)])
    assert head.loss(torch.tensor([[0.0], [0.0]]), labels, NUMBER, "class").item() == pytest.approx(0.5)


@given(arrays(np.float32, (4, 3), elements=st.floats(-20, 20, width=32)))
def test_a_class_head_answers_the_largest_logit(logits):
    found = head.answers(torch.tensor(logits), CLASSES, "class")
    assert all(row[CLASSES.classes.index(name)] >= row.max() - 1e-6 for row, name in zip(logits, found, strict=True))
