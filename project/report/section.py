"""A part of the report's page, and how its numbers and conditions are written."""

import math
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from ..evaluation.comparison import Comparison, Estimate


@dataclass(frozen=True)
class Section:
    """What one function makes of a comparison: a template of this folder, and what it is given besides.

    The template sees `values` by their names, the comparison as `c`, and `figures` as base64 by their names; `figures`
    are written beside the page as PNG, and `tables` as CSV.
    """

    template: str
    values: dict[str, Any]
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    figures: dict[str, Figure] = field(default_factory=dict)


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


def estimate_columns(name: str, estimate: Estimate | None) -> dict[str, float]:
    """An estimate as three columns of a table: value, low and high; nothing for None."""
    if estimate is None:
        return {}
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
