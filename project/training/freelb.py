"""FreeLB, the adversary without a language model: the input embeddings are moved against the model."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch.nn.functional import pad

from ..config.schema import FreeLBConfig


def freelb(
    model: torch.nn.Module,
    view: dict[str, torch.Tensor],
    loss_of: Callable[[torch.Tensor], torch.Tensor],
    config: FreeLBConfig,
) -> torch.Tensor:
    """The mean loss over the points of an ascent from a random displacement of the view's embeddings.

    Zhu et al. 2020, "FreeLB: Enhanced Adversarial Training for Natural Language Understanding", arXiv 1909.11764,
    algorithm 1: the weights learn from every point of the ascent, and each point's one backward pass gives both the
    gradient of the weights and that of the displacement. So K steps cost K forward and backward passes, and K forward
    samples a row; no point is the clean text itself. All points share one dropout mask (section 3.3 of the paper).

    `view` has input_ids and attention_mask, shape (rows, tokens); `loss_of` makes the logits the batch's mean loss.
    """
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    embedding, mask = model.get_input_embeddings(), view["attention_mask"]
    delta = initial_perturbation(mask, embedding.embedding_dim, config.radius)
    dropout = int(torch.randint(2**31, ()))
    earlier = 0.0
    for step in range(config.steps):
        torch.manual_seed(dropout)
        delta.requires_grad_()
        with perturbed_embeddings(embedding, delta):
            loss = loss_of(model(**view).logits) / config.steps
        if step < config.steps - 1:
            slope, *gradients = torch.autograd.grad(loss, [delta, *weights])
            earlier = earlier + gradient_surrogate(loss, gradients, weights)
            delta = ascent_step(delta, slope * mask.unsqueeze(-1), config)
    return earlier + loss


def initial_perturbation(mask: torch.Tensor, width: int, radius: float) -> torch.Tensor:
    """A random displacement, shape (rows, tokens, width): uniform, scaled so that each row lies in its ball.

    Padding is not moved, and a row's scale goes by its own tokens: the paper's U(-radius, radius) / sqrt(elements).
    """
    within = mask.unsqueeze(-1).float()
    elements = within.sum((1, 2), keepdim=True) * width
    return torch.empty(*mask.shape, width, device=mask.device).uniform_(-radius, radius) * within / elements.sqrt()


def ascent_step(delta: torch.Tensor, slope: torch.Tensor, config: FreeLBConfig) -> torch.Tensor:
    """The displacement after a move along the normalised gradient, brought back to the ball; both row by row.

    `delta` and `slope`, the gradient at it, have the shape of the embeddings: (rows, tokens, width).
    """
    moved = delta.detach() + config.step_size * slope / norm(slope).clamp(min=1e-12)
    return moved * (config.radius / norm(moved).clamp(min=1e-12)).clamp(max=1.0)


def norm(displacement: torch.Tensor) -> torch.Tensor:
    """The Frobenius norm of each row's displacement, shape (rows, 1, 1)."""
    return torch.linalg.vector_norm(displacement, dim=(1, 2), keepdim=True)


def gradient_surrogate(
    loss: torch.Tensor, gradients: Sequence[torch.Tensor], weights: Sequence[torch.Tensor]
) -> torch.Tensor:
    """A number, shape (), with the value of the loss and these gradients of the weights, without the loss's graph.

    So what one backward pass found reaches the optimizer with the next one, in whatever way the trainer makes it.
    """
    slope = sum((gradient * weight).sum() for gradient, weight in zip(gradients, weights, strict=True))
    return loss.detach() + (slope - slope.detach())  # the difference is 0 to the last bit


@contextmanager
def perturbed_embeddings(embedding: torch.nn.Module, delta: torch.Tensor) -> Iterator[None]:
    """Within it, the embedding layer's output is moved by `delta`, shape (rows, tokens, width).

    The model still gets token ids, from which positions and Longformer's global attention follow; Longformer also
    lengthens its input to whole windows, which are not moved.
    """

    def move(layer: torch.nn.Module, args: tuple, found: torch.Tensor) -> torch.Tensor:
        return found + pad(delta, (0, 0, 0, found.shape[1] - delta.shape[1])).to(found.dtype)

    handle = embedding.register_forward_hook(move)
    try:
        yield
    finally:
        handle.remove()
