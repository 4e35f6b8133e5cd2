"""Map logits to losses, probabilities and answers, for each kind of target."""

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, mse_loss

from ..data.target import Target
from ..errors import UserError


def num_logits(target: Target, head: str) -> int:
    """Return the width of a head: one logit per class, per threshold between ordered classes, or one for a number.

    Raises UserError for an ordinal head on classes without an order.
    """
    if head == "ordinal" and target.kind != "ordinal":
        raise UserError(
            f"model.head=ordinal needs ordered classes, and the target is a {target.kind}; set "
            "data.task=ordinal if its classes are whole numbers in order, or model.head=class"
        )
    return 1 if target.kind == "number" else len(target.classes) - (head == "ordinal")


def loss(logits: torch.Tensor, labels: torch.Tensor, target: Target, head: str, per_row: bool = False) -> torch.Tensor:
    """Return the mean loss of a batch, or with `per_row` the loss of every row, shape (rows,).

    Logits have shape (rows, width), labels (rows,) as Target.label returns them.

    Classes: cross-entropy. Ordinal head: one logit for each "above class k", with binary cross-entropy, after Frank and
    Hall 2001, "A Simple Approach to Ordinal Classification". Number: squared error of the standardised value.
    """
    reduction = "none" if per_row else "mean"
    if target.kind == "number":
        return mse_loss(logits.squeeze(-1), labels.to(logits.dtype), reduction=reduction)
    if head == "ordinal":
        above = labels[:, None] > torch.arange(logits.shape[-1], device=logits.device)
        losses = binary_cross_entropy_with_logits(logits, above.to(logits.dtype), reduction=reduction)
        return losses.mean(-1) if per_row else losses
    return cross_entropy(logits, labels.long(), reduction=reduction)


def symmetric_kl(first: torch.Tensor, second: torch.Tensor, target: Target, head: str) -> torch.Tensor:
    """Return the mean disagreement, shape (), of predictions from two views of the same rows; logits (rows, width).

    Half the sum of both Kullback-Leibler divergences, as in R-Drop (Liang et al. 2021, arXiv 2106.14448). That sum is
    the sum over the classes of (p - q)(log p - log q). Logits may replace the log-probabilities: they differ by a
    constant over the classes, and p - q adds up to 0. An ordinal head takes the mean over its thresholds, a number the
    squared difference of standardised values.
    """
    first, second = first.float(), second.float()
    if target.kind == "number":
        return mse_loss(first, second)
    if head == "ordinal":
        return ((first.sigmoid() - second.sigmoid()) * (first - second)).mean() / 2
    return ((first.softmax(-1) - second.softmax(-1)) * (first - second)).sum(-1).mean() / 2


def probabilities(logits: torch.Tensor, target: Target, head: str) -> np.ndarray | None:
    """Return class probabilities, shape (rows, classes); None for a number.

    An ordinal head's probabilities are differences of P(above k), after a running minimum makes these fall with k.
    """
    if target.kind == "number":
        return None
    logits = logits.double()
    if head == "class":
        return logits.softmax(-1).cpu().numpy()
    above = torch.cummin(logits.sigmoid(), -1).values
    ends = torch.ones_like(above[:, :1])
    return -torch.diff(torch.cat([ends, above, 0 * ends], -1)).cpu().numpy()


def answers(logits: torch.Tensor, target: Target, head: str) -> list[str] | list[float]:
    """Return the predicted class of each row, or its number in the target's unit, within the training targets' bounds.

    Logits have shape (rows, width).
    """
    if target.kind != "number":
        return [target.classes[index] for index in probabilities(logits, target, head).argmax(-1)]
    values = logits.squeeze(-1).double().cpu().numpy() * target.scale + target.mean
    # Clip before the exponential: an extreme logit would overflow.
    low, high = np.log([target.low, target.high]) if target.log else (target.low, target.high)
    bounded = np.clip(values, low, high)
    return (np.exp(bounded) if target.log else bounded).tolist()
