"""Percentile intervals from a cluster bootstrap: whole groups of rows are drawn again, with replacement.

Rows of one group (the adverts of one rescuer, the listings of one host) are alike, so rows drawn one by one would
give intervals that are too narrow. Source: Davison and Hinkley 1997, "Bootstrap Methods and their Application",
sections 3.8 and 5.3.

An interval of any measure is made of three steps: `group_weights` once, `resampled_mean` for each set of rows,
then the measure of the resampled means goes to `interval`. Because all conditions and methods share the
weights, a difference of their resampled measures is paired.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike


def group_weights(groups: ArrayLike, resamples: int, seed: int) -> np.ndarray:
    """How often each row is in each resample, shape (resamples, rows).

    As many groups are drawn as there are; a row's weight is its group's count. It depends on the set of group
    names, not on the order of the rows. With a single group nothing can be drawn again: the weights are NaN, and
    so is each interval that is made of them.
    """
    names, inverse = np.unique(np.asarray(groups), return_inverse=True)
    if len(names) < 2:
        return np.full((resamples, len(inverse)), np.nan)
    counts = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
    return counts[:, inverse].astype(float)


def resampled_mean(values: ArrayLike, weights: np.ndarray) -> np.ndarray:
    """The mean over the rows in each resample, shape (resamples,) or (resamples, conditions).

    `values` has shape (rows,) or (rows, conditions); `weights` is from `group_weights`. A resample that holds no row
    has NaN.
    """
    values = np.asarray(values, float)
    rows = weights.sum(axis=1).reshape(-1, *[1] * (values.ndim - 1))
    return weights @ values / np.where(rows > 0, rows, np.nan)


def interval(draws: ArrayLike, coverage: float = 0.95) -> tuple[float, float]:
    """The central percentiles (low, high) of the resampled values of one measure, shape (resamples,).

    Undefined resamples are left out as long as they are fewer than what one tail cuts off; with more of them the
    interval is not known, and both ends are NaN. An end may be infinite where draws are.
    """
    draws = np.asarray(draws, float)
    tail = (1 - coverage) / 2
    if np.isnan(draws).mean() > tail:
        return float("nan"), float("nan")
    # Between infinite values there is nothing to interpolate.
    method = "inverted_cdf" if np.isinf(draws).any() else "linear"
    low, high = np.nanquantile(draws, [tail, 1 - tail], method=method)
    return float(low), float(high)


def estimate_with_interval(
    values: ArrayLike, weights: np.ndarray, of_mean: Callable[[ArrayLike], np.ndarray] = np.asarray
) -> tuple[float, float, float]:
    """A function of the mean over rows, and the ends of its interval; three times NaN where there is no row.

    `values` has shape (rows,); `weights` is from `group_weights`.
    """
    values = np.asarray(values, float)
    if not len(values):
        return (float("nan"),) * 3
    return float(of_mean(values.mean())), *interval(of_mean(resampled_mean(values, weights)))


def p_value(draws: ArrayLike) -> float:
    """Two-sided p-value of "the measure is 0", from the resampled values of a paired difference, shape (resamples,).

    Twice the smaller share of resamples on either side of 0, zeros on both, with one more resample counted on each
    side, so that it is never 0 and at most 1. It is the level at which the percentile interval just reaches 0 (Efron
    and Tibshirani 1993, "An Introduction to the Bootstrap", section 15.4; the correction: Davison and Hinkley 1997,
    section 4.2). Undefined resamples are treated as `interval` treats them.
    """
    draws = np.asarray(draws, float)
    if np.isnan(interval(draws)).any():
        return float("nan")
    draws = draws[~np.isnan(draws)]
    beyond = min((draws <= 0).sum(), (draws >= 0).sum())
    return float(min(1, 2 * (beyond + 1) / (len(draws) + 1)))
