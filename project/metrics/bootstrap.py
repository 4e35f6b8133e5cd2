"""Percentile intervals from a cluster bootstrap, which resamples groups of rows with replacement.

Rows of one group (the adverts of one rescuer, the listings of one host) are correlated, so resampling single rows
would give intervals that are too narrow. Source: Davison and Hinkley 1997, "Bootstrap Methods and their
Application", sections 3.8 and 5.3.

An interval takes three steps: `group_weights` once, `resampled_mean` for each set of rows, and `interval` of the
measure of the resampled means. All conditions and methods share the weights, so a difference of their resampled
measures is paired.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike


def group_weights(groups: ArrayLike, resamples: int, seed: int) -> np.ndarray:
    """Return how often each resample contains each row, shape (resamples, rows).

    A resample draws as many groups as the data have; the weight of a row is the count of its group. The weights
    depend on the set of group names and not on the order of the rows. A single group cannot be resampled: the
    weights are NaN, and so is every interval computed from them.
    """
    names, inverse = np.unique(np.asarray(groups), return_inverse=True)
    if len(names) < 2:
        return np.full((resamples, len(inverse)), np.nan)
    counts = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
    return counts[:, inverse].astype(float)


def resampled_mean(values: ArrayLike, weights: np.ndarray) -> np.ndarray:
    """Return the mean over the rows of each resample, shape (resamples,) or (resamples, conditions).

    `values` has shape (rows,) or (rows, conditions); `weights` is from `group_weights`. The mean of a resample
    without rows is NaN.
    """
    values = np.asarray(values, float)
    rows = weights.sum(axis=1).reshape(-1, *[1] * (values.ndim - 1))
    return weights @ values / np.where(rows > 0, rows, np.nan)


def interval(draws: ArrayLike, coverage: float = 0.95) -> tuple[float, float]:
    """Return the central percentiles (low, high) of the resampled values `draws` of one measure, shape (resamples,).

    NaN draws are ignored if their share is at most that of one tail; otherwise both ends are NaN. An end may be
    infinite if draws are.
    """
    draws = np.asarray(draws, float)
    tail = (1 - coverage) / 2
    if np.isnan(draws).mean() > tail:
        return float("nan"), float("nan")
    # Interpolation between infinite values gives NaN.
    method = "inverted_cdf" if np.isinf(draws).any() else "linear"
    low, high = np.nanquantile(draws, [tail, 1 - tail], method=method)
    return float(low), float(high)


def estimate_with_interval(
    values: ArrayLike, weights: np.ndarray, of_mean: Callable[[ArrayLike], np.ndarray] = np.asarray
) -> tuple[float, float, float]:
    """Return `of_mean` of the mean over rows and the ends of its interval: (value, low, high), all NaN without rows.

    `values` has shape (rows,); `weights` is from `group_weights`.
    """
    values = np.asarray(values, float)
    if not len(values):
        return (float("nan"),) * 3
    return float(of_mean(values.mean())), *interval(of_mean(resampled_mean(values, weights)))


def p_value(draws: ArrayLike) -> float:
    """Return the two-sided p-value of "the measure is 0" from resampled paired differences, shape (resamples,).

    It is twice the smaller share of resamples on either side of 0; zeros count on both sides. One resample is added
    to each side, so that the p-value is never 0; it is at most 1. It is the level at which the percentile interval
    just reaches 0 (Efron and Tibshirani 1993, "An Introduction to the Bootstrap", section 15.4; the added resample:
    Davison and Hinkley 1997, section 4.2). NaN draws are treated as in `interval`.
    """
    draws = np.asarray(draws, float)
    if np.isnan(interval(draws)).any():
        return float("nan")
    draws = draws[~np.isnan(draws)]
    beyond = min((draws <= 0).sum(), (draws >= 0).sum())
    return float(min(1, 2 * (beyond + 1) / (len(draws) + 1)))
