"""A part of the report's page, and how its numbers and conditions are written."""

from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from ..evaluation.comparison import Estimate


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


def estimate_columns(name: str, estimate: Estimate | None) -> dict[str, float]:
    """An estimate as three columns of a table: value, low and high; nothing for None."""
    if estimate is None:
        return {}
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
