"""FreeLB: the perturbation stays in its ball and is zero on padding; the weights learn from every point."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import BertConfig, BertForSequenceClassification

from project.config.schema import FreeLBConfig
from project.training.freelb import (
    ascent_step,
    freelb,
    gradient_surrogate,
    initial_perturbation,
    norm,
    perturbed_embeddings,
)

LABELS = torch.tensor([0, 1, 2])
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]])
WIDTH = 16


def model_of(dropout=0.0):
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=30,
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        num_labels=3,
        max_position_embeddings=16,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    return BertForSequenceClassification(config).train()


def view():
    torch.manual_seed(1)
    return {"input_ids": torch.randint(3, 30, MASK.shape) * MASK, "attention_mask": MASK}


def loss_of(logits):
    return torch.nn.functional.cross_entropy(logits, LABELS)


def gradients_of(model):
    return torch.cat([weight.grad.flatten() for weight in model.parameters()])


@given(st.floats(0.01, 5), st.floats(0, 5), st.integers(0, 99))
def test_the_perturbation_stays_in_its_ball_and_is_zero_on_padding(radius, step_size, seed):
    torch.manual_seed(seed)
    delta = initial_perturbation(MASK, WIDTH, radius)
    assert (norm(delta) > 0).all() and (norm(delta) <= radius * (1 + 1e-5)).all()
    for _ in range(4):
        slope = torch.randn(delta.shape) * MASK.unsqueeze(-1)
        delta = ascent_step(delta, slope, FreeLBConfig(step_size=step_size, radius=radius))
        assert (norm(delta) <= radius * (1 + 1e-5)).all()
        assert (delta[MASK == 0] == 0).all()


def test_an_ascent_step_has_the_step_size_along_the_gradient_of_each_row():
    slope = torch.randn(2, 5, WIDTH) * torch.tensor([1.0, 1e-6]).view(2, 1, 1)
    delta = ascent_step(torch.zeros(2, 5, WIDTH), slope, FreeLBConfig(step_size=0.25, radius=9.0))
    torch.testing.assert_close(norm(delta).flatten(), torch.full((2,), 0.25))
    assert torch.nn.functional.cosine_similarity(delta.flatten(1), slope.flatten(1)).min() > 0.999
    unchanged = ascent_step(torch.ones(1, 5, WIDTH), torch.zeros(1, 5, WIDTH), FreeLBConfig(step_size=0.25, radius=1e9))
    assert torch.equal(unchanged, torch.ones(1, 5, WIDTH))


def test_the_ascent_raises_the_loss():
    model, losses = model_of(), []
    freelb(
        model,
        view(),
        lambda logits: losses.append(loss_of(logits)) or losses[-1],
        FreeLBConfig(steps=6, step_size=0.5, radius=3.0),
    )
    values = [loss.item() for loss in losses]
    assert values == sorted(values) and values[-1] > values[0] + 0.01


def test_the_weights_learn_from_every_point_with_one_backward_pass_per_point():
    """The reference keeps the graph of every point and runs one backward pass through all of them at the end."""
    config = FreeLBConfig(steps=3, step_size=0.3, radius=1.0)
    model, texts, points = model_of(), view(), []
    embedding = model.get_input_embeddings()
    forward = embedding.register_forward_hook(lambda layer, args, output: points.append(output))
    torch.manual_seed(5)
    loss = freelb(model, texts, loss_of, config)
    loss.backward()
    forward.remove()
    gradients = gradients_of(model)
    model.zero_grad()
    torch.manual_seed(5)
    delta, losses = initial_perturbation(MASK, WIDTH, config.radius), []
    for _ in range(config.steps):
        delta.requires_grad_()
        with perturbed_embeddings(embedding, delta):
            losses.append(loss_of(model(**texts).logits))
        (slope,) = torch.autograd.grad(losses[-1], delta, retain_graph=True)
        delta = ascent_step(delta, slope * MASK.unsqueeze(-1), config)
    expected = sum(losses) / len(losses)
    expected.backward()
    assert len(points) == config.steps
    torch.testing.assert_close(loss.detach(), expected.detach())
    torch.testing.assert_close(gradients, gradients_of(model), atol=1e-6, rtol=1e-4)


def test_radius_zero_gives_the_loss_of_the_clean_text():
    model, texts = model_of(), view()
    loss = freelb(model, texts, loss_of, FreeLBConfig(steps=2, step_size=0.1, radius=0.0))
    torch.testing.assert_close(loss.detach(), loss_of(model(**texts).logits).detach())


def test_all_points_share_one_dropout_mask():
    model, losses = model_of(dropout=0.5), []
    freelb(
        model,
        view(),
        lambda logits: losses.append(loss_of(logits)) or losses[-1],
        FreeLBConfig(steps=3, step_size=0.0, radius=0.0),
    )
    assert losses[0] == losses[1] == losses[2]
    assert loss_of(model(**view()).logits) != losses[0]


def test_an_error_in_the_context_restores_the_embedding_layer():
    model, texts = model_of(), view()
    expected = model(**texts).logits
    with (
        pytest.raises(RuntimeError),
        perturbed_embeddings(model.get_input_embeddings(), torch.ones(*MASK.shape, WIDTH)),
    ):
        assert not torch.equal(model(**texts).logits, expected)
        raise RuntimeError
    assert torch.equal(model(**texts).logits, expected)


def test_a_gradient_surrogate_has_the_given_value_and_gradients():
    weights = [torch.randn(3, requires_grad=True), torch.randn(2, 2, requires_grad=True)]
    gradients = [torch.randn(3), torch.randn(2, 2)]
    surrogate = gradient_surrogate(torch.tensor(0.7), gradients, weights)
    assert surrogate == torch.tensor(0.7)
    for weight, gradient, expected in zip(weights, torch.autograd.grad(surrogate, weights), gradients, strict=True):
        assert gradient.shape == weight.shape and torch.equal(gradient, expected)
