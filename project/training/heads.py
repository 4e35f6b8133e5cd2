"""From the logits of the transformer to a loss and an answer, for each kind of target."""

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, mse_loss

from ..data.target import Target
from ..errors import UserError


def num_logits(target: Target, head: str) -> int:
    """How many logits a head has: one a class, one a threshold between ordered classes, or one for a number.

    Raises UserError for an ordinal head on classes without an order.
    """
    if head == "ordinal" and target.kind != "ordinal":
        raise UserError(
            f"model.head=ordinal wants ordered classes, and the target is a {target.kind}; set "
            "data.task=ordinal where its classes are whole numbers in order, or model.head=class"
        )
    return 1 if target.kind == "number" else len(target.classes) - (head == "ordinal")


def loss(logits: torch.Tensor, labels: torch.Tensor, target: Target, head: str, each: bool = False) -> torch.Tensor:
    """The mean loss of a batch, or with `each` every row's, shape (rows,).

    Logits have shape (rows, width), labels (rows,) as Target.label gives them.

    Cross-entropy of classes. An ordinal head has a logit for each "above class k", with binary cross-entropy: Frank and
    Hall 2001, "A Simple Approach to Ordinal Classification". A number's loss is the squared error, standardised.
    """
    reduction = "none" if each else "mean"
    if target.kind == "number":
        return mse_loss(logits.squeeze(-1), labels.to(logits.dtype), reduction=reduction)
    if head == "ordinal":
        above = labels[:, None] > torch.arange(logits.shape[-1], device=logits.device)
        found = binary_cross_entropy_with_logits(logits, above.to(logits.dtype), reduction=reduction)
        return found.mean(-1) if each else found
    return cross_entropy(logits, labels.long(), reduction=reduction)


def symmetric_kl(first: torch.Tensor, second: torch.Tensor, target: Target, head: str) -> torch.Tensor:
    """How far the predictions from two views of the same rows are apart, the mean of the rows; logits (rows, width).

    Half the sum of both Kullback-Leibler divergences, as in R-Drop (Liang et al. 2021, arXiv 2106.14448). That sum is
    the sum over the classes of (p - q)(log p - log q), in which logits may stand for the logarithms: these differ from
    them by what is the same for every class, and p - q adds up to 0. An ordinal head's is the mean over its thresholds,
    a number's the squared difference, standardised.
    """
    first, second = first.float(), second.float()
    if target.kind == "number":
        return mse_loss(first, second)
    if head == "ordinal":
        return ((first.sigmoid() - second.sigmoid()) * (first - second)).mean() / 2
    return ((first.softmax(-1) - second.softmax(-1)) * (first - second)).sum(-1).mean() / 2


def probabilities(logits: torch.Tensor, target: Target, head: str) -> np.ndarray | None:
    """Class probabilities, shape (rows, classes); None for a number.

    Those of an ordinal head are differences of P(above k), which are made to fall with k first.
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
    """The predicted classes, or numbers in their own unit, within the bounds of the training targets; one a row.

    Logits have shape (rows, width).
    """
    if target.kind != "number":
        return [target.classes[index] for index in probabilities(logits, target, head).argmax(-1)]
    learned = logits.squeeze(-1).double().cpu().numpy() * target.scale + target.mean
    # Bounded before the exponential: a wild logit would overflow.
    low, high = np.log([target.low, target.high]) if target.log else (target.low, target.high)
    bounded = np.clip(learned, low, high)
    return (np.exp(bounded) if target.log else bounded).tolist()
