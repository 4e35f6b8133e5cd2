"""The report's part on calibration: expected calibration error under each condition, and reliability curves."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..evaluation.comparison import Comparison
from ..evaluation.primary_endpoint import primary_condition
from ..metrics.scores import reliability
from .figures import legend, legible, plain_text, style, tidy
from .formatting import condition_text
from .section import Section

BINS = 10
"""Bins of confidence of a reliability curve."""
FEW_ROWS = 5
"""A bin with fewer rows is not drawn."""


def calibration(comparison: Comparison) -> Section | None:
    """The errors, and the curves of clean rows and the primary endpoint; None where no method gives probabilities."""
    errors = calibration_table(comparison)
    if errors.empty:
        return None
    curves = reliability_table(comparison, [name for name in ("clean", primary_condition(comparison)) if name])
    figures = {
        f"reliability{suffix}": reliability_curves(comparison, curves, methods)
        for suffix, methods in legible(list(errors.columns)).items()
    }
    named = errors.rename(index={name: condition_text(comparison, name) for name in errors.index})
    values = {"errors": named, "bins": BINS, "few": FEW_ROWS, "curves": list(figures)}
    tables = {"calibration": errors.reset_index(names="condition"), "reliability": curves}
    return Section("calibration.html.j2", values, tables, figures)


def calibration_table(comparison: Comparison) -> pd.DataFrame:
    """Expected calibration error by condition (rows) and method, the mean over its seeds.

    Each run's is over its own test rows. Methods without probabilities are left out.
    """
    conditions = comparison.conditions.rename_axis("name").reset_index()
    found = {}
    for method in comparison.methods:
        results = pd.concat([run.results for run in comparison.runs[method]]).rename(columns={"condition": "kind"})
        errors = results[results["metric"] == "ece"].merge(conditions, on=list(comparison.conditions.columns))
        if errors["value"].notna().any():
            found[method] = errors.groupby("name")["value"].mean()
    return pd.DataFrame(found).reindex(comparison.conditions.index) if found else pd.DataFrame()


def reliability_table(comparison: Comparison, conditions: list[str]) -> pd.DataFrame:
    """Rows, mean confidence and accuracy by method, condition and bin of confidence, over the rows of all its seeds."""
    found = []
    for method in comparison.methods:
        tables = []
        for run in comparison.runs[method]:
            rows = run.probabilities(conditions)
            if rows["probabilities"].notna().all():
                indices = {name: index for index, name in enumerate(run.info.classes or [])}
                tables.append(rows.assign(target=rows["target"].map(indices).fillna(-1)))
        for condition, rows in pd.concat(tables).groupby("condition") if tables else ():
            bins = reliability(rows["target"].to_numpy(), np.stack(rows["probabilities"].tolist()), BINS)
            found.append(
                pd.DataFrame(
                    {
                        "method": method,
                        "condition": condition,
                        "bin": range(1, BINS + 1),
                        **dict(zip(("rows", "confidence", "accuracy"), bins, strict=True)),
                    }
                )
            )
    return pd.concat(found, ignore_index=True)


def reliability_curves(comparison: Comparison, curves: pd.DataFrame, methods: list[str]) -> Figure:
    """Accuracy over confidence, a panel a condition; on the diagonal a method is calibrated."""
    conditions = [name for name in comparison.conditions.index if name in set(curves["condition"])]
    figure = Figure(figsize=(7.2, 4.2 + 0.1 * len(methods)), layout="constrained")
    panels = figure.subplots(1, len(conditions), sharey=True, squeeze=False).ravel()
    for panel, condition in zip(panels, conditions, strict=True):
        panel.plot([0, 1], [0, 1], color="0.35", linestyle=(0, (1, 3)), linewidth=1.2, label="calibrated")
        for method in methods:
            colour, line, marker = style(comparison, method)
            rows = curves[
                (curves["condition"] == condition) & (curves["method"] == method) & (curves["rows"] >= FEW_ROWS)
            ]
            panel.plot(
                rows["confidence"],
                rows["accuracy"],
                color=colour,
                linestyle=line,
                marker=marker,
                markersize=5,
                label=plain_text(method),
            )
        panel.set_title(condition_text(comparison, condition), fontsize=11)
        panel.set_xlabel("confidence")
        panel.set_xlim(0, 1)
        panel.set_ylim(0, 1)
        tidy(panel)
    panels[0].set_ylabel("accuracy")
    legend(figure, panels[0])
    return figure
