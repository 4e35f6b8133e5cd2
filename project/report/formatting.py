"""Format numbers, intervals and names for the report."""

import math

from ..evaluation.comparison import Comparison, Estimate


def number_text(value: float, digits: int = 3) -> str:
    """Return a number with fixed digits and the minus sign −; a dash for NaN."""
    return "–" if math.isnan(value) else f"{value:.{digits}f}".replace("-", "−")


def name_text(metric: str) -> str:
    """Return the name of a metric in prose."""
    names = {"rmse": "RMSE", "rmse_log": "RMSE (log)", "r2": "R²", "macro_f1": "macro F1", "ece": "ECE"}
    return names.get(metric, metric)


def signed_text(value: float, digits: int = 3) -> str:
    """Return a difference with its sign."""
    return ("+" if value > 0 else "") + number_text(value, digits)


def bounds_text(estimate: Estimate, digits: int = 2) -> str:
    """Return the interval in brackets; empty if it is NaN."""
    if math.isnan(estimate.low):
        return ""
    return f"[{number_text(estimate.low, digits)}, {number_text(estimate.high, digits)}]"


def difference_text(estimate: Estimate, digits: int = 3) -> str:
    """Return a difference and its interval with equal digits, which show whether an end is 0."""
    return f"{signed_text(estimate.value, digits)} {bounds_text(estimate, digits)}".strip()


def level_text(estimate: Estimate, highest: float) -> str:
    """Return a breakdown level with its interval; infinite levels are written as above the highest tested one."""

    def text(level: float) -> str:
        return f"> {highest:g}" if math.isinf(level) else number_text(level, 2)

    bounds = "" if math.isnan(estimate.low) else f" [{text(estimate.low)}, {text(estimate.high)}]"
    return text(estimate.value) + bounds


def p_text(p: float) -> str:
    """Return a p-value in three digits with its relation: = 0.031, < 0.001."""
    return "unknown" if math.isnan(p) else f"= {p:.3f}" if p >= 0.001 else "< 0.001"


def noise_text(modality: str) -> str:
    """Return the modality of noise in words."""
    return "all modalities" if modality == "all" else modality


def condition_text(comparison: Comparison, name: str) -> str:
    """Return a condition in words: noise 0.5 on text, without text and table, order text, image, blur 0.5 on image.

    A name that is no condition of the comparison, as in an older table, is returned unchanged.
    """
    if name not in comparison.conditions.index:
        return name
    columns = ["kind", "modality", "corruption", "level", "order"]
    kind, modality, corruption, level, order = comparison.conditions.loc[name, columns]
    match kind:
        case "noisy":
            return f"noise {level:g} on {noise_text(modality)}"
        case "missing":
            return "without " + modality.replace("+", " and ")
        case "order":
            return "order " + order.replace(",", ", ")
        case "natural":
            return f"{corruption} {level:g} on {modality}"
    return name
