"""Measures of whole curves, the score against the noise level, of the methods of a comparison."""

import numpy as np

from . import scores
from .comparison import Comparison, Estimate

BASELINE = "fusion"
"""Late fusion, which effective robustness is measured against: conf/method/fusion.yaml."""


def modalities(comparison: Comparison) -> list[str]:
    """What was tested under noise: modalities, and all of them at once."""
    return list(dict.fromkeys(comparison.conditions["modality"][comparison.select("noisy")]))


def curve(comparison: Comparison, modality: str) -> tuple[list[str], list[float]]:
    """The conditions of a curve and their noise levels, from clean rows (level 0) to the highest level."""
    levels = comparison.conditions["level"][comparison.select("noisy", modality)]
    levels = levels[levels > 0].sort_values()
    return ["clean", *levels.index], [0.0, *levels]


def area(comparison: Comparison, method: str, modality: str) -> Estimate:
    """Area under the curve, the relative robustness: see scores.area_under_curve."""
    names, levels = curve(comparison, modality)
    columns = comparison.columns(names)
    return comparison.estimate(lambda own: scores.area_under_curve(levels, own[..., columns]), method)


def effective(comparison: Comparison, method: str, modality: str, baseline: str) -> Estimate:
    """Effective robustness against a baseline, paired: see scores.effective_robustness."""
    names, levels = curve(comparison, modality)
    columns, better = comparison.columns(names), comparison.score.higher_is_better

    def measure(own: np.ndarray, other: np.ndarray) -> np.ndarray:
        return scores.effective_robustness(levels, own[..., columns], other[..., columns], better)

    return comparison.estimate(measure, method, baseline)


def breakdown(comparison: Comparison, method: str, modality: str, threshold: float) -> Estimate:
    """Breakdown level of the seeds' mean curve, `inf` above the highest tested level: see scores.breakdown_level."""
    (clean, *names), (_, *levels) = curve(comparison, modality)
    columns, better = comparison.columns(names), comparison.score.higher_is_better
    (clean,) = comparison.columns([clean])

    def measure(own: np.ndarray) -> np.ndarray:
        drops = scores.drop_ratio(own[..., [clean]], own[..., columns], better)
        return scores.breakdown_level(levels, drops, threshold)

    return comparison.estimate(measure, method)


def corruption_error(comparison: Comparison, method: str, reference: str) -> Estimate:
    """mCE against a reference, paired, over the noise on each modality and on all: see scores.mean_corruption_error.

    Missing modalities and other orders have no levels and are not in it.
    """
    columns = [comparison.columns(curve(comparison, modality)[0][1:]) for modality in modalities(comparison)]

    def errors(found: np.ndarray) -> list[np.ndarray]:
        found = 1 - found if comparison.score.higher_is_better else found
        return [found[..., own] for own in columns]

    return comparison.estimate(lambda own, other: scores.mean_corruption_error(errors(own), errors(other)), method,
                               reference)
