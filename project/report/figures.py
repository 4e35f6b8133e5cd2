"""The report's main figures, and the style of all figures.

Methods differ in colour, line style and marker, so that figures can be read in grey and by colour-blind readers.
"""

import math
import textwrap

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from ..corruption.natural import NATURAL
from ..evaluation.comparison import Comparison, Estimate
from ..evaluation.curves import Curve, curves
from ..pipeline.modalities import REGISTRY
from .formatting import condition_text, noise_text

# The colours are those of Okabe and Ito 2008 for colour-blind readers; no line style or marker repeats.
METHOD_STYLES = [
    ("#000000", "-", "o"),
    ("#0072B2", "--", "s"),
    ("#D55E00", "-.", "^"),
    ("#009E73", ":", "D"),
    ("#CC79A7", (0, (5, 1, 1, 1, 1, 1)), "v"),
    ("#E69F00", (0, (8, 2)), "P"),
    ("#56B4E9", (0, (3, 1, 1, 1)), "X"),
    ("#000000", (0, (1, 2)), "*"),
    ("#0072B2", (0, (10, 3, 2, 3)), "<"),
    ("#D55E00", (0, (4, 4)), ">"),
    ("#009E73", (0, (6, 1, 1, 1)), "h"),
    ("#CC79A7", (0, (2, 1)), "p"),
]
MAX_METHODS = len(METHOD_STYLES)
"""Maximum number of methods in a panel."""
LIGHT_TO_DARK = ListedColormap(colormaps["Blues"](np.linspace(0, 0.85, 256)))
"""A single hue of increasing darkness, which is also a scale in grey."""


def escape_mathtext(text: str) -> str:
    """Escape dollar signs, so that matplotlib does not read them as mathematics."""
    return text.replace("$", r"\$")


def method_style(comparison: Comparison, method: str) -> tuple:
    """Return colour, line style and marker of a method: equal in all figures, unique in a part of `split_methods`."""
    index = comparison.methods.index(method)
    return METHOD_STYLES[1 + (index - 1) % (MAX_METHODS - 1)] if index else METHOD_STYLES[0]


def add_legend(figure: Figure, axes: Axes) -> None:
    """Add one legend above all panels."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=min(3, len(labels)), frameon=False, fontsize=10)


def split_methods(methods: list[str]) -> dict[str, list[str]]:
    """Return parts of at most MAX_METHODS methods by the suffix of a figure's name: "", _2, ...

    Each part begins with the first method, the reference.
    """
    first, *others = methods
    starts = range(0, max(len(others), 1), MAX_METHODS - 1)
    return {
        f"_{number}" if number > 1 else "": [first, *others[start : start + MAX_METHODS - 1]]
        for number, start in enumerate(starts, start=1)
    }


def style_axes(panel: Axes) -> None:
    """Draw a light grid, and no frame at the top and on the right."""
    panel.grid(alpha=0.25)
    panel.spines[["top", "right"]].set_visible(False)


def score_against_level(comparison: Comparison, kind: str) -> dict[str, Figure]:
    """Plot the score against the level of a kind of corruption, one panel per curve.

    `kind` is noisy or natural. Bands are 95 % intervals, thin points single seeds. Returns one figure per part of
    `split_methods`, by suffix; none if the kind has no curve.
    """
    kind_curves = curves(comparison, [kind])
    if not kind_curves:
        return {}
    return {
        suffix: _curve_panels(comparison, kind_curves, methods)
        for suffix, methods in split_methods(comparison.methods).items()
    }


def _curve_panels(comparison: Comparison, kind_curves: list[Curve], methods: list[str]) -> Figure:
    rows = math.ceil(len(kind_curves) / 2)
    height = 0.5 + 0.22 * math.ceil((len(methods) + 1) / 3) + 3.1 * rows
    figure = Figure(figsize=(7.2, height), layout="constrained")
    panels = figure.subplots(rows, min(2, len(kind_curves)), squeeze=False, sharey=True).ravel()
    for panel, curve in zip(panels, kind_curves, strict=False):
        for method in methods:
            colour, line, marker = method_style(comparison, method)
            estimates = [comparison.value(method, [name]) for name in curve.names]
            low, high = [estimate.low for estimate in estimates], [estimate.high for estimate in estimates]
            # The bands of many methods hide each other; the table has all intervals.
            if len(methods) <= 4:
                panel.fill_between(curve.levels, low, high, color=colour, alpha=0.12, linewidth=0)
            panel.plot(
                curve.levels,
                [estimate.value for estimate in estimates],
                color=colour,
                linestyle=line,
                marker=marker,
                markersize=5,
                label=escape_mathtext(method),
            )
            for level, estimate in zip(curve.levels, estimates, strict=True):
                _seed_points(panel, [level] * len(estimate.seeds), estimate.seeds, colour, marker)
        if not math.isnan(comparison.chance):
            panel.axhline(comparison.chance, color="0.35", linestyle=(0, (1, 3)), linewidth=1.2, label="chance")
        panel.set_title(f"{curve.sort} on {noise_text(curve.modality)}", fontsize=11)
        panel.set_xlabel(f"{curve.sort} level\n({textwrap.fill(_unit(curve), 44)})")
        panel.set_xticks(curve.levels)
        panel.set_xlim(-0.03, max(curve.levels) + 0.03)
        if comparison.metric == "accuracy":
            panel.set_ylim(0, 1)
        style_axes(panel)
    for panel in panels[len(kind_curves) :]:
        panel.set_visible(False)
    for panel in panels[::2]:
        panel.set_ylabel(comparison.score.label)
    add_legend(figure, panels[0])
    return figure


def _unit(curve: Curve) -> str:
    """Return what a level of the corruption means."""
    if curve.corruption:
        return NATURAL[curve.corruption].unit
    return REGISTRY[curve.modality].unit if curve.modality in REGISTRY else "on all modalities at once"


def _seed_points(panel: Axes, x: list[float], y: tuple[float, ...], colour: str, marker: str) -> None:
    """Draw the values of several seeds as small open points; a single seed is the value itself."""
    if len(y) > 1:
        panel.plot(
            x,
            y,
            linestyle="",
            marker=marker,
            markersize=3,
            markerfacecolor="none",
            markeredgecolor=colour,
            markeredgewidth=0.5,
            alpha=0.7,
        )


def intervals(estimates: dict[str, Estimate], label: str) -> Figure:
    """Plot one row per estimate, the first on top: a point and its 95 % interval; `label` is the label of the axis."""
    figure = Figure(figsize=(7.2, 0.9 + 0.3 * len(estimates)), layout="constrained")
    panel = figure.subplots()
    for row, estimate in enumerate(estimates.values()):
        panel.hlines(row, estimate.low, estimate.high, color="0.35", linewidth=1.5)
        panel.plot([estimate.value], [row], linestyle="", marker="o", color="black", markersize=5)
    panel.set_yticks(range(len(estimates)), [escape_mathtext(name) for name in estimates])
    panel.set_ylim(len(estimates) - 0.4, -0.6)
    panel.set_xlabel(label)
    style_axes(panel)
    return figure


def clean_and_corrupted(comparison: Comparison, condition: str) -> Figure:
    """Plot one row per method with intervals: clean score (filled), score under the condition (open), drop ratio."""
    methods = comparison.methods
    figure = Figure(figsize=(7.2, 1.3 + 0.42 * len(methods)), layout="constrained")
    scores, drops = figure.subplots(1, 2, sharey=True)
    for row, method in enumerate(methods):
        clean, corrupted = (comparison.value(method, [name]) for name in ("clean", condition))
        _point_with_interval(scores, clean, row - 0.14, "black", "clean" if row == 0 else "")
        _point_with_interval(
            scores, corrupted, row + 0.14, "white", condition_text(comparison, condition) if row == 0 else ""
        )
        _point_with_interval(drops, comparison.drop(method, [condition]), row, "0.6", "")
    if not math.isnan(comparison.chance):
        scores.axvline(comparison.chance, color="0.35", linestyle=(0, (1, 3)), linewidth=1.2, label="chance")
    drops.axvline(0, color="0.1", linewidth=0.8)
    scores.set_yticks(range(len(methods)), [escape_mathtext(method) for method in methods])
    scores.set_ylim(len(methods) - 0.5, -0.5)
    scores.set_xlabel(comparison.score.label)
    formula = "corrupted / clean" if comparison.score.higher_is_better else "clean / corrupted"
    drops.set_xlabel(f"drop ratio (1 − {formula};\nlower is better)")
    for panel in (scores, drops):
        style_axes(panel)
        panel.tick_params(axis="y", length=0)
    add_legend(figure, scores)
    return figure


def _point_with_interval(panel: Axes, estimate: Estimate, y: float, fill: str, label: str) -> None:
    panel.hlines(y, estimate.low, estimate.high, color="0.1", linewidth=1.3)
    if len(estimate.seeds) > 1:
        panel.plot(
            estimate.seeds,
            [y] * len(estimate.seeds),
            linestyle="",
            marker="|",
            color="0.1",
            markersize=6,
            markeredgewidth=0.7,
        )
    panel.plot(
        [estimate.value],
        [y],
        linestyle="",
        marker="o",
        markersize=6.5,
        markerfacecolor=fill,
        markeredgecolor="0.1",
        label=label,
    )


def heat_map(comparison: Comparison) -> Figure:
    """Plot the drop ratio of each method (columns) under each condition (rows), also as a number; darker is higher."""
    names, methods = comparison.corrupted, comparison.methods
    drops = np.array([[comparison.drop(method, [name]).value for method in methods] for name in names])
    highest = max(0.5, float(np.nanmax(drops, initial=0)))
    # The size grows with the rows and columns, so that the numbers fit.
    figure = Figure(figsize=(max(7.2, 3 + 0.55 * len(methods)), 1.8 + 0.26 * len(names)), layout="constrained")
    panel = figure.subplots()
    image = panel.imshow(np.ma.masked_invalid(drops), cmap=LIGHT_TO_DARK, vmin=0, vmax=highest, aspect="auto")
    for row, column in np.ndindex(drops.shape):
        drop = drops[row, column]
        text = "–" if math.isnan(drop) else f"{drop:.2f}".replace("-", "−")
        panel.text(
            column,
            row,
            text,
            ha="center",
            va="center",
            fontsize=8.5,
            color="white" if drop > 0.6 * highest else "black",
        )
    panel.set_xticks(
        range(len(methods)),
        [escape_mathtext(method) for method in methods],
        rotation=40,
        ha="left",
        rotation_mode="anchor",
    )
    panel.xaxis.tick_top()
    panel.set_yticks(range(len(names)), [escape_mathtext(condition_text(comparison, name)) for name in names])
    kinds = comparison.conditions.loc[names, ["kind", "modality"]]
    kinds = kinds["kind"].where(kinds["kind"] != "noisy", kinds["modality"]).to_list()
    for row in range(1, len(names)):
        if kinds[row] != kinds[row - 1]:
            panel.axhline(row - 0.5, color="0.1", linewidth=0.9)
    panel.tick_params(length=0)
    figure.colorbar(image, ax=panel, label="drop ratio (0 or less is white)", shrink=min(1, 8 / len(names)), aspect=15)
    return figure
