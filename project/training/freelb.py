"""FreeLB: adversarial training on the input embeddings, without a language model."""

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
    """Return the mean loss, shape (), over the points of a gradient ascent that starts at a random perturbation.

    Zhu et al. 2020, "FreeLB: Enhanced Adversarial Training for Natural Language Understanding", arXiv 1909.11764,
    algorithm 1: the weights learn from every point of the ascent, and one backward pass at each point gives both the
    gradient of the weights and that of the perturbation. K steps therefore cost K forward and backward passes, and K
    forward samples per row; no point is the clean text itself. All points share one dropout mask (section 3.3).

    `view` has input_ids and attention_mask, shape (rows, tokens); `loss_of` maps logits to the mean loss of the batch.
    """
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    embedding, mask = model.get_input_embeddings(), view["attention_mask"]
    delta = initial_perturbation(mask, embedding.embedding_dim, config.radius)
    dropout_seed = int(torch.randint(2**31, ()))
    surrogates = 0.0
    for step in range(config.steps):
        torch.manual_seed(dropout_seed)
        delta.requires_grad_()
        with perturbed_embeddings(embedding, delta):
            loss = loss_of(model(**view).logits) / config.steps
        if step < config.steps - 1:
            slope, *gradients = torch.autograd.grad(loss, [delta, *weights])
            surrogates = surrogates + gradient_surrogate(loss, gradients, weights)
            delta = ascent_step(delta, slope * mask.unsqueeze(-1), config)
    return surrogates + loss


def initial_perturbation(mask: torch.Tensor, width: int, radius: float) -> torch.Tensor:
    """Return a uniform random perturbation, shape (rows, tokens, width), scaled so that each row lies in its ball.

    Padding is zero. The scale of a row depends on its own tokens: the paper's U(-radius, radius) / sqrt(elements).
    """
    is_token = mask.unsqueeze(-1).float()
    elements = is_token.sum((1, 2), keepdim=True) * width
    return torch.empty(*mask.shape, width, device=mask.device).uniform_(-radius, radius) * is_token / elements.sqrt()


def ascent_step(delta: torch.Tensor, slope: torch.Tensor, config: FreeLBConfig) -> torch.Tensor:
    """Return the perturbation after one step along the normalised gradient, projected onto the ball, row by row.

    `delta` and `slope`, the gradient at `delta`, have the shape of the embeddings: (rows, tokens, width).
    """
    stepped = delta.detach() + config.step_size * slope / norm(slope).clamp(min=1e-12)
    return stepped * (config.radius / norm(stepped).clamp(min=1e-12)).clamp(max=1.0)


def norm(perturbation: torch.Tensor) -> torch.Tensor:
    """Return the Frobenius norm of each row, shape (rows, 1, 1)."""
    return torch.linalg.vector_norm(perturbation, dim=(1, 2), keepdim=True)


def gradient_surrogate(
    loss: torch.Tensor, gradients: Sequence[torch.Tensor], weights: Sequence[torch.Tensor]
) -> torch.Tensor:
    """Return a scalar with the value of the loss and the given gradients of the weights, without the loss's graph.

    Carries earlier gradients into the final backward pass, so AMP, DDP and accumulation treat them as usual.
    """
    slope = sum((gradient * weight).sum() for gradient, weight in zip(gradients, weights, strict=True))
    return loss.detach() + (slope - slope.detach())  # the difference is exactly 0


@contextmanager
def perturbed_embeddings(embedding: torch.nn.Module, delta: torch.Tensor) -> Iterator[None]:
    """Add `delta`, shape (rows, tokens, width), to the output of the embedding layer within the context.

    The model still gets token ids, from which it derives positions and Longformer's global attention. Longformer also
    pads its input to full windows; that padding is not perturbed.
    """

    def add_delta(layer: torch.nn.Module, args: tuple, output: torch.Tensor) -> torch.Tensor:
        return output + pad(delta, (0, 0, 0, output.shape[1] - delta.shape[1])).to(output.dtype)

    handle = embedding.register_forward_hook(add_delta)
    try:
        yield
    finally:
        handle.remove()
