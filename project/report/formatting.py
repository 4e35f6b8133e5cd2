"""Format numbers, intervals and names for the report."""

import math

from ..evaluation.comparison import Comparison, Estimate


def number_text(value: float, digits: int = 3) -> str:
    """A number with fixed digits and a true minus sign; a dash for NaN."""
    return "–" if math.isnan(value) else f"{value:.{digits}f}".replace("-", "−")


def name_text(metric: str) -> str:
    """A metric's name in prose."""
    names = {"rmse": "RMSE", "rmse_log": "RMSE (log)", "r2": "R²", "macro_f1": "macro F1", "ece": "ECE"}
    return names.get(metric, metric)


def signed_text(value: float, digits: int = 3) -> str:
    """A difference with its sign."""
    return ("+" if value > 0 else "") + number_text(value, digits)


def bounds_text(estimate: Estimate, digits: int = 2) -> str:
    """The interval in brackets, or nothing where it is not known."""
    if math.isnan(estimate.low):
        return ""
    return f"[{number_text(estimate.low, digits)}, {number_text(estimate.high, digits)}]"


def difference_text(estimate: Estimate, digits: int = 3) -> str:
    """A difference with its interval, in digits enough to see on which side of 0 it ends."""
    return f"{signed_text(estimate.value, digits)} {bounds_text(estimate, digits)}".strip()


def level_text(estimate: Estimate, highest: float) -> str:
    """A breakdown level with its interval; what no tested level reaches is above the highest."""

    def text(level: float) -> str:
        return f"> {highest:g}" if math.isinf(level) else number_text(level, 2)

    bounds = "" if math.isnan(estimate.low) else f" [{text(estimate.low)}, {text(estimate.high)}]"
    return text(estimate.value) + bounds


def p_text(p: float) -> str:
    """A p-value in three digits, with its sign of relation."""
    return "unknown" if math.isnan(p) else f"= {p:.3f}" if p >= 0.001 else "< 0.001"


def noise_text(modality: str) -> str:
    """What the noise is on, in words."""
    return "all modalities" if modality == "all" else modality


def condition_text(comparison: Comparison, name: str) -> str:
    """A condition in words: noise 0.5 on text, without text and table, order table, text, image, blur 0.5 on image."""
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
