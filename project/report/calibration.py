"""The section on calibration: expected calibration error under each condition, and reliability curves."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..evaluation.comparison import Comparison
from ..evaluation.primary_endpoint import primary_condition
from ..metrics.scores import reliability
from .figures import add_legend, escape_mathtext, method_style, split_methods, style_axes
from .formatting import condition_text
from .section import Section

BINS = 10
"""Number of confidence bins of a reliability curve."""
MIN_BIN_ROWS = 5
"""Minimum number of rows of a plotted bin."""


def calibration(comparison: Comparison) -> Section | None:
    """Return the errors, and the curves of clean rows and the primary endpoint; None if no method has probabilities."""
    errors = calibration_table(comparison)
    if errors.empty:
        return None
    curves = reliability_table(comparison, [name for name in ("clean", primary_condition(comparison)) if name])
    figures = {
        f"reliability{suffix}": reliability_curves(comparison, curves, methods)
        for suffix, methods in split_methods(list(errors.columns)).items()
    }
    labelled = errors.rename(index={name: condition_text(comparison, name) for name in errors.index})
    values = {"errors": labelled, "bins": BINS, "min_bin_rows": MIN_BIN_ROWS, "curves": list(figures)}
    tables = {"calibration": errors.reset_index(names="condition"), "reliability": curves}
    return Section("calibration.html.j2", values, tables, figures)


def calibration_table(comparison: Comparison) -> pd.DataFrame:
    """Return the expected calibration error by condition (rows) and method (columns), the mean over its seeds.

    The error of a run is over all of its test rows. Methods without probabilities are left out.
    """
    conditions = comparison.conditions.rename_axis("name").reset_index()
    columns = {}
    for method in comparison.methods:
        results = pd.concat([run.results for run in comparison.runs[method]]).rename(columns={"condition": "kind"})
        errors = results[results["metric"] == "ece"].merge(conditions, on=list(comparison.conditions.columns))
        if errors["value"].notna().any():
            columns[method] = errors.groupby("name")["value"].mean()
    return pd.DataFrame(columns).reindex(comparison.conditions.index) if columns else pd.DataFrame()


def reliability_table(comparison: Comparison, conditions: list[str]) -> pd.DataFrame:
    """Return rows, mean confidence and accuracy by method, condition and confidence bin, over all seeds."""
    parts = []
    for method in comparison.methods:
        tables = []
        for run in comparison.runs[method]:
            rows = run.probabilities(conditions)
            if rows["probabilities"].notna().all():
                indices = {name: index for index, name in enumerate(run.info.classes or [])}
                tables.append(rows.assign(target=rows["target"].map(indices).fillna(-1)))
        for condition, rows in pd.concat(tables).groupby("condition") if tables else ():
            bins = reliability(rows["target"].to_numpy(), np.stack(rows["probabilities"].tolist()), BINS)
            parts.append(
                pd.DataFrame(
                    {
                        "method": method,
                        "condition": condition,
                        "bin": range(1, BINS + 1),
                        **dict(zip(("rows", "confidence", "accuracy"), bins, strict=True)),
                    }
                )
            )
    return pd.concat(parts, ignore_index=True)


def reliability_curves(comparison: Comparison, curves: pd.DataFrame, methods: list[str]) -> Figure:
    """Plot accuracy against confidence, one panel per condition; calibrated methods lie on the diagonal."""
    conditions = [name for name in comparison.conditions.index if name in set(curves["condition"])]
    figure = Figure(figsize=(7.2, 4.2 + 0.1 * len(methods)), layout="constrained")
    panels = figure.subplots(1, len(conditions), sharey=True, squeeze=False).ravel()
    for panel, condition in zip(panels, conditions, strict=True):
        panel.plot([0, 1], [0, 1], color="0.35", linestyle=(0, (1, 3)), linewidth=1.2, label="calibrated")
        for method in methods:
            colour, line, marker = method_style(comparison, method)
            rows = curves[
                (curves["condition"] == condition) & (curves["method"] == method) & (curves["rows"] >= MIN_BIN_ROWS)
            ]
            panel.plot(
                rows["confidence"],
                rows["accuracy"],
                color=colour,
                linestyle=line,
                marker=marker,
                markersize=5,
                label=escape_mathtext(method),
            )
        panel.set_title(condition_text(comparison, condition), fontsize=11)
        panel.set_xlabel("confidence")
        panel.set_xlim(0, 1)
        panel.set_ylim(0, 1)
        style_axes(panel)
    panels[0].set_ylabel("accuracy")
    add_legend(figure, panels[0])
    return figure
