"""Measures of robustness curves: the score of a method as a function of the corruption level."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..metrics import scores
from .comparison import Comparison, Estimate

BASELINE = "fusion"
"""Late fusion (conf/method/fusion.yaml), the baseline of effective robustness."""


@dataclass(frozen=True)
class Curve:
    """The conditions of one kind of corruption, `names`, from clean rows (level 0) to the highest tested level.

    `corruption` is the name of a realistic corruption, and empty for noise; `modality` is the corrupted one, or `all`.
    """

    modality: str
    corruption: str
    names: tuple[str, ...]
    levels: tuple[float, ...]

    @property
    def sort(self) -> str:
        """Return noise, or the name of the realistic corruption."""
        return self.corruption or "noise"


def curves(comparison: Comparison, kinds: Sequence[str] = ("noisy", "natural")) -> list[Curve]:
    """Return the curves of these kinds of conditions; a realistic corruption needs two levels for a curve."""
    result = []
    selected = comparison.conditions[comparison.conditions["kind"].isin(kinds)]
    for (kind, modality, corruption), same in selected.groupby(["kind", "modality", "corruption"], sort=False):
        levels = same["level"][same["level"] > 0].sort_values()
        if kind == "noisy" or len(levels) > 1:
            result.append(Curve(modality, corruption, ("clean", *levels.index), (0.0, *levels)))
    return result


def area(comparison: Comparison, method: str, curve: Curve) -> Estimate:
    """Return the area under the curve, the relative robustness; see scores.area_under_curve."""
    columns = comparison.columns(curve.names)
    return comparison.estimate(lambda own: scores.area_under_curve(curve.levels, own[..., columns]), method)


def effective_robustness_of(comparison: Comparison, method: str, curve: Curve, baseline: str) -> Estimate:
    """Return the paired effective robustness against a baseline; see scores.effective_robustness."""
    columns, better = comparison.columns(curve.names), comparison.score.higher_is_better

    def measure(own: np.ndarray, other: np.ndarray) -> np.ndarray:
        return scores.effective_robustness(curve.levels, own[..., columns], other[..., columns], better)

    return comparison.estimate(measure, method, baseline)


def breakdown(comparison: Comparison, method: str, curve: Curve, threshold: float) -> Estimate:
    """Return the breakdown level of the curve averaged over seeds; `inf` if it is above the highest tested level.

    See scores.breakdown_level.
    """
    clean, *columns = comparison.columns(curve.names)
    better = comparison.score.higher_is_better

    def measure(own: np.ndarray) -> np.ndarray:
        drops = scores.drop_ratio(own[..., [clean]], own[..., columns], better)
        return scores.breakdown_level(curve.levels[1:], drops, threshold)

    return comparison.estimate(measure, method)


def corruption_error(comparison: Comparison, method: str, reference: str) -> Estimate:
    """Return the paired mCE against a reference, over noise on each modality and on all.

    Missing modalities and orders have no levels and are not part of it. See scores.mean_corruption_error.
    """
    columns = [comparison.columns(curve.names[1:]) for curve in curves(comparison, ["noisy"])]

    def errors(values: np.ndarray) -> list[np.ndarray]:
        values = 1 - values if comparison.score.higher_is_better else values
        return [values[..., indices] for indices in columns]

    return comparison.estimate(
        lambda own, other: scores.mean_corruption_error(errors(own), errors(other)), method, reference
    )
