"""The section on summary measures of robustness, and on each method's drop against that of the reference."""

import math

import pandas as pd
from matplotlib.figure import Figure

from ..evaluation.comparison import Comparison
from ..evaluation.curves import BASELINE, area, breakdown, curves, effective_robustness_of
from ..evaluation.results import THRESHOLDS
from .figures import escape_mathtext, style_axes
from .formatting import name_text
from .section import Section, estimate_columns

SECONDARY_METRICS = ("kappa", "macro_f1", "ece", "rmse", "r2")
"""Metrics, other than the main one, that the table has under noise if the runs have them."""
KIND_MARKERS = {"noisy": "o", "missing": "s", "order": "^"}
"""Markers of the kinds of conditions; other kinds have a cross."""


def measures(comparison: Comparison) -> Section | None:
    """Return areas, breakdown levels, effective robustness, secondary metrics, and drops against the reference.

    None if no corruption was tested at several levels.
    """
    rows = curve_rows(comparison)
    if not rows:
        return None
    tables = {
        "curves": pd.DataFrame(
            [
                {
                    "method": row["method"],
                    "damage": row["sort"],
                    "modality": row["modality"],
                    **estimate_columns("area_under_curve", row["area"]),
                    **estimate_columns("effective_robustness", row["effective"]),
                    **{
                        key: value
                        for threshold, level in zip(THRESHOLDS, row["breakdown"], strict=True)
                        for key, value in estimate_columns(f"breakdown_{threshold:g}", level).items()
                    },
                    "highest_level": row["highest"],
                    **row["secondary"],
                }
                for row in rows
            ]
        )
    }
    figures = {"reference": drop_against_reference(comparison)} if len(comparison.methods) > 1 else {}
    values = {"rows": rows, "baseline": comparison.named(BASELINE), "thresholds": THRESHOLDS}
    return Section("curves.html.j2", values, tables, figures)


def curve_rows(comparison: Comparison) -> list[dict]:
    """Return one row per method and curve: area, effective robustness, breakdown levels, mean secondary metrics.

    The secondary metrics are those under noise at the middle level.
    """
    rows, baseline = [], comparison.named(BASELINE)
    for method in comparison.methods:
        results = pd.concat([run.results for run in comparison.runs[method]])
        noisy = results[(results["condition"] == "noisy") & (results["level"] == comparison.middle)]
        points = noisy.groupby(["modality", "metric"])["value"].mean()
        secondary = [
            metric for metric in SECONDARY_METRICS if metric != comparison.metric and metric in set(results["metric"])
        ]
        for curve in curves(comparison):
            rows.append(
                {
                    "method": method,
                    "sort": curve.sort,
                    "modality": curve.modality,
                    "highest": curve.levels[-1],
                    "area": area(comparison, method, curve),
                    "effective": effective_robustness_of(comparison, method, curve, baseline) if baseline else None,
                    "breakdown": [breakdown(comparison, method, curve, threshold) for threshold in THRESHOLDS],
                    "secondary": {
                        name_text(metric): math.nan
                        if curve.corruption
                        else points.get((curve.modality, metric), math.nan)
                        for metric in secondary
                    },
                }
            )
    return rows


def drop_against_reference(comparison: Comparison) -> Figure:
    """Plot the drop ratio of each method against that of the reference, one panel per method, one point per condition.

    Below the diagonal the method loses less. The levels of different kinds of corruption cannot be compared, but the
    drops of the reference can.
    """
    reference, *others = comparison.methods
    columns = min(3, len(others))
    rows = math.ceil(len(others) / columns)
    figure = Figure(figsize=(7.2, 0.8 + 2.6 * rows if columns > 1 else 4.5), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    kinds = comparison.conditions["kind"][comparison.corrupted]
    drops = {
        method: {name: comparison.drop(method, [name]).value for name in kinds.index} for method in comparison.methods
    }
    for panel, method in zip(panels, others, strict=False):
        for index, kind in enumerate(kinds.unique()):
            names = kinds.index[kinds == kind]
            panel.plot(
                [drops[reference][name] for name in names],
                [drops[method][name] for name in names],
                linestyle="",
                marker=KIND_MARKERS.get(kind, "x"),
                markersize=5,
                label=kind,
                markerfacecolor=("0.2", "white", "0.7")[index % 3],
                markeredgecolor="0.1",
                markeredgewidth=0.8,
            )
        panel.axline((0, 0), slope=1, color="0.35", linestyle="--", linewidth=1)
        panel.set_title(escape_mathtext(method), fontsize=10)
        style_axes(panel)
    for index, panel in enumerate(panels):
        panel.set_visible(index < len(others))
        panel.tick_params(labelbottom=index + columns >= len(others))
    figure.supxlabel(f"drop ratio of {escape_mathtext(reference)} under the same condition", fontsize=10)
    figure.supylabel("drop ratio of the method", fontsize=10)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=len(labels), frameon=False, fontsize=10)
    return figure
