"""The primary endpoint, fixed in advance: drop ratio of ours against its best rival, noise 0.5 on all modalities.

The rival is selected on validation rows, so that test rows do not influence the selection. All other comparisons in a
report are exploratory.
"""

from dataclasses import dataclass

import numpy as np

from ..metrics.bootstrap import p_value
from .comparison import OURS, Comparison, Estimate

ABLATIONS = ("paraphrase", "perturb_only")
"""Methods that are parts of ours, like those whose name begins with ours_; they are no rivals."""
FAMILY = f"{OURS} against each rival, drop ratio at the primary endpoint"
"""The comparisons that Holm's correction is over."""


@dataclass(frozen=True)
class Contrast:
    """Drop ratio of ours minus that of a rival: in `points` (1 is a hundredth) and in `percent` of the rival's.

    `percent` is NaN if the rival's drop ratio is not above 0. `p` is two-sided; `adjusted` is p after Holm's
    correction over the family.
    """

    rival: str
    validation: float
    points: Estimate
    percent: Estimate
    p: float
    adjusted: float


@dataclass(frozen=True)
class Endpoint:
    """The comparisons of the family, best rival on validation first; rivals without a validation score are last."""

    condition: str
    ours: str
    validation: float
    contrasts: list[Contrast]

    @property
    def best(self) -> Contrast | None:
        """Return the comparison with the best rival; None if no rival has a validation score."""
        first = self.contrasts[0]
        return None if np.isnan(first.validation) else first


def primary_condition(comparison: Comparison) -> str | None:
    """Return the condition of the endpoint: noise on all modalities at the tested level nearest to 0.5.

    For data with a single modality it is noise on that one. Return None if noise was not tested.
    """
    names = comparison.select("noisy", "all", comparison.middle) or comparison.select("noisy", level=comparison.middle)
    return names[0] if len(names) == 1 else None


def is_rival(method: str) -> bool:
    """Return True if a method is neither ours nor one of its variants and parts."""
    return method != OURS and not method.startswith(f"{OURS}_") and method not in ABLATIONS


def endpoint(comparison: Comparison) -> Endpoint | None:
    """Return the primary endpoint; None if there is no run of ours or of a rival, or if noise was not tested.

    The best rival has the best val/score, averaged over its seeds; ties are broken by name.
    """
    condition, ours = primary_condition(comparison), comparison.named(OURS)
    validation = {
        name: comparison.validation(name) for name, runs in comparison.runs.items() if is_rival(runs[0].info.method)
    }
    if condition is None or ours is None or not validation:
        return None
    sign = -1 if comparison.score.higher_is_better else 1
    rivals = sorted(validation, key=lambda name: (np.isnan(validation[name]), sign * validation[name], name))
    drop = comparison.drop_of([condition])

    def points(own: np.ndarray, other: np.ndarray) -> np.ndarray:
        return 100 * (drop(own) - drop(other))

    def percent(own: np.ndarray, other: np.ndarray) -> np.ndarray:
        return points(own, other) / np.where(drop(other) > 0, drop(other), np.nan)

    p_values = [p_value(points(comparison.draws[ours], comparison.draws[rival])) for rival in rivals]
    contrasts = [
        Contrast(
            rival,
            validation[rival],
            comparison.estimate(points, ours, rival),
            comparison.estimate(percent, ours, rival),
            p,
            adjusted,
        )
        for rival, p, adjusted in zip(rivals, p_values, holm(p_values), strict=True)
    ]
    return Endpoint(condition, ours, comparison.validation(ours), contrasts)


def holm(p_values: list[float]) -> list[float]:
    """Return the p-values of a family, adjusted to control the family-wise error rate (step-down).

    The k-th smallest of m is multiplied by m + 1 - k, is at least the one before it, and at most 1. NaN stays NaN and
    counts as the largest. Holm 1979, "A Simple Sequentially Rejective Multiple Test Procedure".
    """
    p_values = np.asarray(p_values, float)
    order = np.argsort(p_values)  # NaN last
    scaled = np.fmax.accumulate(p_values[order] * np.arange(len(order), 0, -1))
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.minimum(scaled, 1)
    return np.where(np.isnan(p_values), np.nan, adjusted).tolist()
