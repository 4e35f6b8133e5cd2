"""A section of the report."""

from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from ..evaluation.comparison import Estimate


@dataclass(frozen=True)
class Section:
    """A section: its template, the values for the template, and its tables and figures.

    The template gets the `values`, the `comparison`, and `figures` as base64 by name. The `figures` are also written
    as PNG and the `tables` as CSV, next to the page.
    """

    template: str
    values: dict[str, Any]
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    figures: dict[str, Figure] = field(default_factory=dict)


def estimate_columns(name: str, estimate: Estimate | None) -> dict[str, float]:
    """Return an estimate as three columns of a table: value, low and high; none for None."""
    if estimate is None:
        return {}
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
