"""Scores of predictions, and measures of how much of a score a corruption costs.

The drop measures accept floats and arrays, so that the bootstrap applies them to all resamples at once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import f1_score


def _divide(numerator: ArrayLike, denominator: ArrayLike) -> np.ndarray:
    """Return the quotient, NaN if the denominator is not positive."""
    numerator, denominator = np.asarray(numerator, float), np.asarray(denominator, float)
    positive = denominator > 0
    return np.where(positive, numerator / np.where(positive, denominator, 1), np.nan)[()]


@dataclass(frozen=True)
class Score:
    """A score that is a function of a mean over rows: of_mean(mean of of_rows(targets, predictions)).

    One value per row is therefore enough to resample it, or to average it over the rows of a condition. `label` is
    the label of an axis.
    """

    label: str
    higher_is_better: bool
    of_rows: Callable[[ArrayLike, ArrayLike], np.ndarray]
    of_mean: Callable[[ArrayLike], np.ndarray]


def _correct(targets: ArrayLike, predictions: ArrayLike) -> np.ndarray:
    return (np.asarray(targets, object) == np.asarray(predictions, object)).astype(float)


def _squared_error(targets: ArrayLike, predictions: ArrayLike) -> np.ndarray:
    return np.square(np.subtract(np.asarray(targets, float), np.asarray(predictions, float)))


def _squared_log_error(targets: ArrayLike, predictions: ArrayLike) -> np.ndarray:
    return _squared_error(np.log(np.asarray(targets, float)), np.log(np.asarray(predictions, float)))


SCORES = {
    "accuracy": Score("accuracy (share of test rows)", True, _correct, lambda mean: mean),
    "rmse": Score("RMSE (unit of the target)", False, _squared_error, np.sqrt),
    "rmse_log": Score("RMSE (natural logarithm of the target)", False, _squared_log_error, np.sqrt),
}
"""Accuracy is the share of rows whose prediction is the target; RMSE is the root of the mean squared error."""


def score(targets: ArrayLike, predictions: ArrayLike, metric: str) -> float:
    """Return one of SCORES; `targets` and `predictions` have shape (rows,)."""
    return float(SCORES[metric].of_mean(SCORES[metric].of_rows(targets, predictions).mean()))


def quadratic_kappa(targets: ArrayLike, predictions: ArrayLike, classes: int, weights: ArrayLike) -> np.ndarray:
    """Return Cohen's kappa with quadratic weights for each resample, shape (resamples,).

    `targets` and `predictions` are indices of ordered classes, shape (rows,); `weights` are the counts of the rows,
    shape (resamples, rows). 1 is agreement, 0 the agreement of independent predictions; NaN if all targets and
    predictions are one class. Cohen 1968, "Weighted kappa".
    """
    weights, indices = np.asarray(weights, float), np.arange(classes)
    cost = np.square(np.subtract.outer(indices, indices))
    predicted, actual = (weights @ (np.asarray(column)[:, None] == indices) for column in (predictions, targets))
    observed = weights @ cost[np.asarray(targets), np.asarray(predictions)]
    expected = np.einsum("ri,ij,rj->r", actual, cost, predicted) / weights.sum(axis=1)
    return 1 - _divide(observed, expected)


def r_squared(targets: ArrayLike, predictions: ArrayLike, weights: ArrayLike) -> np.ndarray:
    """Return R², 1 - squared error / squared deviation from the mean, for each resample, shape (resamples,).

    `targets` and `predictions` have shape (rows,), `weights` has shape (resamples, rows).
    """
    weights, targets = np.asarray(weights, float), np.asarray(targets, float)
    mean = weights @ targets / weights.sum(axis=1)
    spread = weights @ np.square(targets) - weights.sum(axis=1) * np.square(mean)
    return 1 - _divide(weights @ _squared_error(targets, predictions), spread)


def macro_f1(targets: ArrayLike, predictions: ArrayLike) -> float:
    """Return the unweighted mean, over the classes of the targets, of F1 = 2 TP / (2 TP + FP + FN).

    The mean excludes classes that are never a target, so that it is over the same classes under each condition. The
    F1 of a class that is never predicted is 0.
    """
    return float(f1_score(targets, predictions, labels=np.unique(targets), average="macro", zero_division=0))


def chance(targets: ArrayLike, constant: str | float, metric: str = "accuracy") -> float:
    """Return the score of a constant prediction, such as the majority class or the mean of the training rows.

    `targets` has shape (rows,).
    """
    return score(targets, [constant] * len(np.asarray(targets)), metric)


def drop_ratio(clean: ArrayLike, corrupted: ArrayLike, higher_is_better: bool = True) -> np.ndarray:
    """Return the lost share of the performance: 1 - corrupted / clean, and for an error 1 - clean / corrupted.

    0 means no loss, and a negative value means that the corrupted score is the better one; NaN if the denominator is
    not positive. Scores may have any shape, such as (resamples,). The name is from arXiv 2408.09798, which does not
    state the formula; this one is our own. It applies to accuracy and RMSE, and not to R² or kappa: they can be 0 or
    negative, which makes a ratio meaningless.
    """
    return 1 - (_divide(corrupted, clean) if higher_is_better else _divide(clean, corrupted))


def chance_adjusted_drop(
    clean: ArrayLike, corrupted: ArrayLike, chance: ArrayLike, higher_is_better: bool = True
) -> np.ndarray:
    """Return the lost share of the advantage over chance: (clean - corrupted) / (clean - chance), also for errors.

    1 means that the corrupted score is that of chance; NaN if the clean score is no better than chance. Our own
    complement of the drop ratio, which favours models with a low clean score.
    """
    sign = 1 if higher_is_better else -1
    return _divide(sign * np.subtract(clean, corrupted), sign * np.subtract(clean, chance))


def reliability(targets: ArrayLike, probabilities: ArrayLike, bins: int = 15) -> tuple[np.ndarray, ...]:
    """Return the rows, mean confidence and accuracy of each confidence bin, three arrays of shape (bins,).

    The means of an empty bin are NaN. `targets` are class indices of shape (rows,); -1 is a class unknown to the
    model, which is always wrong. `probabilities` has shape (rows, classes). The confidence is the largest
    probability; the bins have equal width. Guo et al. 2017, "On Calibration of Modern Neural Networks" (arXiv
    1706.04599), equations 1 and 2.
    """
    probabilities = np.asarray(probabilities, float)
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == np.asarray(targets)
    bin_indices = np.digitize(confidence, np.linspace(0, 1, bins + 1)[1:-1], right=True)
    rows = np.bincount(bin_indices, minlength=bins)
    sums = (np.bincount(bin_indices, weights=values, minlength=bins) for values in (confidence, correct))
    return rows, *(_divide(total, rows) for total in sums)


def expected_calibration_error(targets: ArrayLike, probabilities: ArrayLike, bins: int = 15) -> float:
    """Return the sum over bins of (rows in bin / rows) |accuracy - confidence|.

    The arguments are those of `reliability`. Guo et al. 2017 (arXiv 1706.04599), equation 3.
    """
    rows, confidence, accuracy = reliability(targets, probabilities, bins)
    return float(np.nansum(rows * np.abs(accuracy - confidence)) / rows.sum())


def area_under_curve(levels: ArrayLike, scores: ArrayLike) -> np.ndarray:
    """Return the mean height of the curve of scores over levels: the trapezoidal area divided by the highest level.

    `levels` has shape (levels,), rises and begins with 0, the clean score; `scores` has shape (..., levels). Raises
    ValueError for other levels. It is the relative robustness of MultiBench (Liang et al. 2021, arXiv 2107.07502),
    divided by the highest level so that it has the unit of the score.
    """
    levels = np.asarray(levels, float)
    if len(levels) < 2 or levels[0] != 0 or (np.diff(levels) <= 0).any():
        raise ValueError(f"levels={levels.tolist()}: levels must rise from 0")
    return np.trapezoid(scores, levels, axis=-1) / levels[-1]


def effective_robustness(
    levels: ArrayLike, scores: ArrayLike, baseline: ArrayLike, higher_is_better: bool = True
) -> np.ndarray:
    """Return the mean distance of a curve of scores above the baseline's, shifted to the same clean score.

    The shapes are those of `area_under_curve`, and the unit is that of the score. Above 0 the method loses less than
    the baseline, also for errors. The baseline of MultiBench (Liang et al. 2021, arXiv 2107.07502) is late fusion. Its
    code sums the distances over the tested levels and scales them by the best and the worst method; this function
    returns their unscaled mean over the levels.
    """
    scores, baseline = np.asarray(scores, float), np.asarray(baseline, float)
    gain = area_under_curve(levels, scores - baseline) - (scores[..., 0] - baseline[..., 0])
    return gain if higher_is_better else -gain


def mean_corruption_error(errors: Sequence[ArrayLike], reference: Sequence[ArrayLike]) -> np.ndarray:
    """Return mCE: the mean over corruptions of the errors' sum over levels, divided by that of a reference model.

    Both arguments have one array of shape (..., levels) per corruption. 1 is the robustness of the reference, and
    lower is better; NaN if the reference makes no error. Hendrycks and Dietterich 2019 (arXiv 1903.12261), section 4,
    in per cent and with AlexNet as the reference.
    """
    ratios = [
        _divide(np.sum(model, axis=-1), np.sum(base, axis=-1)) for model, base in zip(errors, reference, strict=True)
    ]
    return np.mean(ratios, axis=0)


def breakdown_level(levels: ArrayLike, drops: ArrayLike, threshold: float) -> np.ndarray:
    """Return the smallest noise level at which the drop reaches the threshold, shape (...).

    The drop is 0 at level 0 and linear between levels. `levels` of shape (levels,) rises and is positive; `drops` has
    shape (..., levels). The result is `inf` if no tested level reaches the threshold (the true level is censored above
    the highest), and NaN if a drop is. Raises ValueError for other levels. Our own measure, after the breakdown point
    of robust statistics.
    """
    levels, drops = np.r_[0.0, np.asarray(levels, float)], np.asarray(drops, float)
    if (np.diff(levels) <= 0).any():
        raise ValueError(f"levels={levels[1:].tolist()}: levels must rise and be positive")
    drops = np.concatenate([np.zeros((*drops.shape[:-1], 1)), drops], axis=-1)
    reached = drops >= threshold
    after = reached.argmax(axis=-1)[..., None]
    before = np.maximum(after - 1, 0)
    low, high = (np.take_along_axis(drops, side, axis=-1)[..., 0] for side in (before, after))
    share = np.nan_to_num(_divide(threshold - low, high - low))
    after, before = after[..., 0], before[..., 0]
    breakdown = np.where(reached.any(axis=-1), levels[before] + share * (levels[after] - levels[before]), np.inf)
    return np.where(np.isnan(drops).any(axis=-1), np.nan, breakdown)[()]
