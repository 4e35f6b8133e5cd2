"""Measures of whole curves, the score against the level of a damage, of the methods of a comparison."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..metrics import scores
from .comparison import Comparison, Estimate

BASELINE = "fusion"
"""Late fusion, which effective robustness is measured against: conf/method/fusion.yaml."""


@dataclass(frozen=True)
class Curve:
    """The conditions of one sort of damage, `names`, from clean rows (level 0) to the highest tested level.

    `corruption` is the name of realistic damage, and empty for noise; `modality` is what it is on, `all` where it is
    on every modality at once.
    """

    modality: str
    corruption: str
    names: tuple[str, ...]
    levels: tuple[float, ...]

    @property
    def sort(self) -> str:
        """The damage in a word: noise, or the name of a realistic one."""
        return self.corruption or "noise"


def curves(comparison: Comparison, kinds: Sequence[str] = ("noisy", "natural")) -> list[Curve]:
    """Those of noise and of realistic damage, or of one of them; a realistic damage of a single level has none."""
    found = []
    chosen = comparison.conditions[comparison.conditions["kind"].isin(kinds)]
    for (kind, modality, corruption), same in chosen.groupby(["kind", "modality", "corruption"], sort=False):
        levels = same["level"][same["level"] > 0].sort_values()
        if kind == "noisy" or len(levels) > 1:
            found.append(Curve(modality, corruption, ("clean", *levels.index), (0.0, *levels)))
    return found


def area(comparison: Comparison, method: str, curve: Curve) -> Estimate:
    """Area under the curve, the relative robustness: see scores.area_under_curve."""
    columns = comparison.columns(curve.names)
    return comparison.estimate(lambda own: scores.area_under_curve(curve.levels, own[..., columns]), method)


def effective_robustness_of(comparison: Comparison, method: str, curve: Curve, baseline: str) -> Estimate:
    """Effective robustness against a baseline, paired: see scores.effective_robustness."""
    columns, better = comparison.columns(curve.names), comparison.score.higher_is_better

    def measure(own: np.ndarray, other: np.ndarray) -> np.ndarray:
        return scores.effective_robustness(curve.levels, own[..., columns], other[..., columns], better)

    return comparison.estimate(measure, method, baseline)


def breakdown(comparison: Comparison, method: str, curve: Curve, threshold: float) -> Estimate:
    """Breakdown level of the seeds' mean curve, `inf` above the highest tested level: see scores.breakdown_level."""
    clean, *columns = comparison.columns(curve.names)
    better = comparison.score.higher_is_better

    def measure(own: np.ndarray) -> np.ndarray:
        drops = scores.drop_ratio(own[..., [clean]], own[..., columns], better)
        return scores.breakdown_level(curve.levels[1:], drops, threshold)

    return comparison.estimate(measure, method)


def corruption_error(comparison: Comparison, method: str, reference: str) -> Estimate:
    """mCE against a reference, paired, over the noise on each modality and on all: see scores.mean_corruption_error.

    Missing modalities and other orders have no levels and are not in it.
    """
    columns = [comparison.columns(curve.names[1:]) for curve in curves(comparison, ["noisy"])]

    def errors(found: np.ndarray) -> list[np.ndarray]:
        found = 1 - found if comparison.score.higher_is_better else found
        return [found[..., own] for own in columns]

    return comparison.estimate(
        lambda own, other: scores.mean_corruption_error(errors(own), errors(other)), method, reference
    )
