"""Scores of predictions, and measures of how much of a score a corruption takes away.

The drop measures take floats or arrays alike, so that the bootstrap applies them to all resamples at once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import f1_score


def _divide(numerator: ArrayLike, denominator: ArrayLike) -> np.ndarray:
    """The quotient, NaN where the denominator is not positive."""
    numerator, denominator = np.asarray(numerator, float), np.asarray(denominator, float)
    positive = denominator > 0
    return np.where(positive, numerator / np.where(positive, denominator, 1), np.nan)[()]


@dataclass(frozen=True)
class Score:
    """A score that is a function of a mean over rows: of_mean(mean of of_rows(targets, predictions)).

    So it can be resampled, and averaged over the rows of a condition, from one value a row. `label` is for axes.
    """

    label: str
    higher_is_better: bool
    of_rows: Callable[[ArrayLike, ArrayLike], np.ndarray]
    of_mean: Callable[[ArrayLike], np.ndarray]


def _right(targets: ArrayLike, predictions: ArrayLike) -> np.ndarray:
    return (np.asarray(targets, object) == np.asarray(predictions, object)).astype(float)


def _squared_error(targets: ArrayLike, predictions: ArrayLike) -> np.ndarray:
    return np.square(np.subtract(np.asarray(targets, float), np.asarray(predictions, float)))


def _squared_log_error(targets: ArrayLike, predictions: ArrayLike) -> np.ndarray:
    return _squared_error(np.log(np.asarray(targets, float)), np.log(np.asarray(predictions, float)))


SCORES = {
    "accuracy": Score("accuracy (share of test rows)", True, _right, lambda mean: mean),
    "rmse": Score("RMSE (unit of the target)", False, _squared_error, np.sqrt),
    "rmse_log": Score("RMSE (natural logarithm of the target)", False, _squared_log_error, np.sqrt),
}
"""Accuracy is the share of rows whose prediction is the target; RMSE is the root of the mean squared error."""


def score(targets: ArrayLike, predictions: ArrayLike, metric: str) -> float:
    """One of SCORES on some rows; targets and predictions of shape (rows,)."""
    return float(SCORES[metric].of_mean(SCORES[metric].of_rows(targets, predictions).mean()))


def quadratic_kappa(targets: ArrayLike, predictions: ArrayLike, classes: int, weights: ArrayLike) -> np.ndarray:
    """Cohen's kappa with quadratic weights (Cohen 1968, "Weighted kappa"), one for each resample.

    `targets` and `predictions` are indices of ordered classes, shape (rows,); `weights` tells how often each row
    counts, shape (resamples, rows). 1 is agreement, 0 that of independent answers; NaN where all is one class.
    """
    weights, indices = np.asarray(weights, float), np.arange(classes)
    cost = np.square(np.subtract.outer(indices, indices))
    said, true = (weights @ (np.asarray(column)[:, None] == indices) for column in (predictions, targets))
    observed = weights @ cost[np.asarray(targets), np.asarray(predictions)]
    expected = np.einsum("ri,ij,rj->r", true, cost, said) / weights.sum(axis=1)
    return 1 - _divide(observed, expected)


def r_squared(targets: ArrayLike, predictions: ArrayLike, weights: ArrayLike) -> np.ndarray:
    """1 - squared error / squared deviation from the mean, one for each resample; `weights` (resamples, rows)."""
    weights, targets = np.asarray(weights, float), np.asarray(targets, float)
    mean = weights @ targets / weights.sum(axis=1)
    spread = weights @ np.square(targets) - weights.sum(axis=1) * np.square(mean)
    return 1 - _divide(weights @ _squared_error(targets, predictions), spread)


def macro_f1(targets: ArrayLike, predictions: ArrayLike) -> float:
    """Unweighted mean, over the classes among the targets, of F1 = 2 TP / (2 TP + FP + FN).

    A class that is never a target has no part in the mean, so that the classes are the same under each condition.
    A class that is never predicted has an F1 of 0.
    """
    return float(f1_score(targets, predictions, labels=np.unique(targets), average="macro", zero_division=0))


def chance(targets: ArrayLike, constant: str | float, metric: str = "accuracy") -> float:
    """The score of always giving the best constant answer of the training rows: their majority class, or their mean.

    `targets` has shape (rows,).
    """
    return score(targets, [constant] * len(np.asarray(targets)), metric)


def drop_ratio(clean: ArrayLike, corrupted: ArrayLike, higher_is_better: bool = True) -> np.ndarray:
    """Share of the performance that is lost: 1 - corrupted / clean, and for an error 1 - clean / corrupted.

    0 means that nothing is lost, a negative value that the corruption helped; NaN where the denominator is not
    positive. Scores may have any shape, such as (resamples,). The name is of arXiv 2408.09798, which does not state
    the formula; this one is our own. It is for accuracy and RMSE, not for R² or kappa, whose zero makes a ratio
    meaningless.
    """
    return 1 - (_divide(corrupted, clean) if higher_is_better else _divide(clean, corrupted))


def chance_adjusted_drop(
    clean: ArrayLike, corrupted: ArrayLike, chance: ArrayLike, higher_is_better: bool = True
) -> np.ndarray:
    """Share of the advantage over chance that is lost: (clean - corrupted) / (clean - chance), for errors too.

    1 means that the model has fallen to chance; NaN where the clean score is no better than chance. Our own
    complement of the drop ratio, which flatters a model whose clean score is low.
    """
    sign = 1 if higher_is_better else -1
    return _divide(sign * np.subtract(clean, corrupted), sign * np.subtract(clean, chance))


def reliability(targets: ArrayLike, probabilities: ArrayLike, bins: int = 15) -> tuple[np.ndarray, ...]:
    """Rows, mean confidence and accuracy of each bin of confidence, shape (bins,) each; NaN means in an empty bin.

    `targets` are class indices of shape (rows,), -1 for a class that the model does not know, which is always
    wrong; `probabilities` has shape (rows, classes). The confidence is the largest probability, and the bins are
    of equal width. Guo et al. 2017, "On Calibration of Modern Neural Networks" (arXiv 1706.04599), equations 1 and 2.
    """
    probabilities = np.asarray(probabilities, float)
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == np.asarray(targets)
    found = np.digitize(confidence, np.linspace(0, 1, bins + 1)[1:-1], right=True)
    rows = np.bincount(found, minlength=bins)
    return rows, *(_divide(np.bincount(found, weights=each, minlength=bins), rows) for each in (confidence, correct))


def expected_calibration_error(targets: ArrayLike, probabilities: ArrayLike, bins: int = 15) -> float:
    """Mean distance between confidence and accuracy: sum over bins of (rows in bin / rows) |accuracy - confidence|.

    The arguments are those of `reliability`. Guo et al. 2017 (arXiv 1706.04599), equation 3.
    """
    rows, confidence, accuracy = reliability(targets, probabilities, bins)
    return float(np.nansum(rows * np.abs(accuracy - confidence)) / rows.sum())


def area_under_curve(levels: ArrayLike, scores: ArrayLike) -> np.ndarray:
    """Mean height of the curve of scores over noise levels: the trapezoids' area divided by the span of levels.

    `levels` has shape (levels,), rises, and begins with 0, the clean score; `scores` has shape (..., levels).
    Raises ValueError for other levels. It is the relative robustness of MultiBench (Liang et al. 2021, arXiv
    2107.07502), divided by the span so that it has the unit of the score.
    """
    levels = np.asarray(levels, float)
    if len(levels) < 2 or levels[0] != 0 or (np.diff(levels) <= 0).any():
        raise ValueError(f"levels must rise from 0, and not be {levels.tolist()}")
    return np.trapezoid(scores, levels, axis=-1) / levels[-1]


def effective_robustness(
    levels: ArrayLike, scores: ArrayLike, baseline: ArrayLike, higher_is_better: bool = True
) -> np.ndarray:
    """How far the curve of scores runs above a baseline's that is shifted to the same clean score.

    The shapes are those of `area_under_curve`, and the unit is that of the score; above 0 the method holds better than
    the baseline, for errors too. MultiBench (Liang et al. 2021, arXiv 2107.07502) takes late fusion for the baseline.
    Its code adds the distances up over the tested levels and scales them by the best and the worst method; this is
    their mean over the levels, unscaled.
    """
    scores, baseline = np.asarray(scores, float), np.asarray(baseline, float)
    gain = area_under_curve(levels, scores - baseline) - (scores[..., 0] - baseline[..., 0])
    return gain if higher_is_better else -gain


def mean_corruption_error(errors: Sequence[ArrayLike], reference: Sequence[ArrayLike]) -> np.ndarray:
    """mCE: per corruption the errors' sum over its levels, divided by that of a reference model; then the mean of it.

    One array of shape (..., levels) a corruption in both. 1 is the reference's robustness, less is better; NaN where
    the reference makes no error. Hendrycks and Dietterich 2019 (arXiv 1903.12261), section 4, there in per cent and
    with AlexNet for the reference.
    """
    ratios = [
        _divide(np.sum(own, axis=-1), np.sum(other, axis=-1)) for own, other in zip(errors, reference, strict=True)
    ]
    return np.mean(ratios, axis=0)


def breakdown_level(levels: ArrayLike, drops: ArrayLike, threshold: float) -> np.ndarray:
    """Smallest noise level at which the drop reaches the threshold, linear between levels and 0 at level 0.

    `levels` of shape (levels,) rises and is positive; `drops` has shape (..., levels). `inf` means that no tested level
    reaches the threshold (the true one is censored above the highest); NaN where a drop is undefined. Raises ValueError
    for other levels. Our own measure, after the breakdown point of robust statistics.
    """
    levels, drops = np.r_[0.0, np.asarray(levels, float)], np.asarray(drops, float)
    if (np.diff(levels) <= 0).any():
        raise ValueError(f"levels must rise and be positive, and not be {levels[1:].tolist()}")
    drops = np.concatenate([np.zeros((*drops.shape[:-1], 1)), drops], axis=-1)
    reached = drops >= threshold
    after = reached.argmax(axis=-1)[..., None]
    before = np.maximum(after - 1, 0)
    low, high = (np.take_along_axis(drops, side, axis=-1)[..., 0] for side in (before, after))
    share = np.nan_to_num(_divide(threshold - low, high - low))
    after, before = after[..., 0], before[..., 0]
    found = np.where(reached.any(axis=-1), levels[before] + share * (levels[after] - levels[before]), np.inf)
    return np.where(np.isnan(drops).any(axis=-1), np.nan, found)[()]
