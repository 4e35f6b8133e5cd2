"""The report's main figures, and the looks of all. Methods differ in line style and marker too, so that they print in
grey and the colour-blind can tell them apart."""

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

# Colours of Okabe and Ito 2008, which colour-blind readers can tell apart; the lines and markers are all different.
STYLES = [
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
MOST = len(STYLES)
"""Lines in a panel at most."""
LIGHT_TO_DARK = ListedColormap(colormaps["Blues"](np.linspace(0, 0.85, 256)))
"""A single hue that rises in darkness, so that it is a scale in grey too."""


def plain_text(text: str) -> str:
    """The text without the meaning that matplotlib gives to dollar signs."""
    return text.replace("$", r"\$")


def style(comparison: Comparison, method: str) -> tuple:
    """Colour, line style and marker of a method, the same in all figures; different within a part of `legible`."""
    index = comparison.methods.index(method)
    return STYLES[1 + (index - 1) % (MOST - 1)] if index else STYLES[0]


def legend(figure: Figure, axes: Axes) -> None:
    """One legend above all panels."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=min(3, len(labels)), frameon=False, fontsize=10)


def legible(methods: list[str]) -> dict[str, list[str]]:
    """The methods in parts of at most MOST, the first of all in each; by the suffix of a figure's name: "", _2, ..."""
    first, *others = methods
    starts = range(0, max(len(others), 1), MOST - 1)
    return {
        f"_{number}" if number > 1 else "": [first, *others[start : start + MOST - 1]]
        for number, start in enumerate(starts, start=1)
    }


def tidy(panel: Axes) -> None:
    """A light grid, and no frame where nothing is read."""
    panel.grid(alpha=0.25)
    panel.spines[["top", "right"]].set_visible(False)


def score_against_level(comparison: Comparison, kind: str) -> dict[str, Figure]:
    """The score over the level of noise or of realistic damage, a panel a curve; bands are 95 % intervals, thin points
    single seeds.

    `kind` is noisy or natural. By suffix, a figure for each part of `legible`; none where the kind has no curve.
    """
    found = curves(comparison, [kind])
    return {
        suffix: _panels(comparison, found, methods) for suffix, methods in legible(comparison.methods).items() if found
    }


def _panels(comparison: Comparison, found: list[Curve], methods: list[str]) -> Figure:
    rows = math.ceil(len(found) / 2)
    height = 0.5 + 0.22 * math.ceil((len(methods) + 1) / 3) + 3.1 * rows
    figure = Figure(figsize=(7.2, height), layout="constrained")
    panels = figure.subplots(rows, min(2, len(found)), squeeze=False, sharey=True).ravel()
    for panel, curve in zip(panels, found, strict=False):
        for method in methods:
            colour, line, marker = style(comparison, method)
            estimates = [comparison.value(method, [name]) for name in curve.names]
            low, high = [estimate.low for estimate in estimates], [estimate.high for estimate in estimates]
            # With many methods the bands would hide each other; the table has all intervals.
            if len(methods) <= 4:
                panel.fill_between(curve.levels, low, high, color=colour, alpha=0.12, linewidth=0)
            panel.plot(
                curve.levels,
                [estimate.value for estimate in estimates],
                color=colour,
                linestyle=line,
                marker=marker,
                markersize=5,
                label=plain_text(method),
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
        tidy(panel)
    for panel in panels[len(found) :]:
        panel.set_visible(False)
    for panel in panels[::2]:
        panel.set_ylabel(comparison.score.label)
    legend(figure, panels[0])
    return figure


def _unit(curve: Curve) -> str:
    """What a level of the damage means."""
    if curve.corruption:
        return NATURAL[curve.corruption].unit
    return REGISTRY[curve.modality].unit if curve.modality in REGISTRY else "on all modalities at once"


def _seed_points(panel: Axes, x: list[float], y: tuple[float, ...], colour: str, marker: str) -> None:
    """Single seeds, small and open; nothing where there is one, which is the value itself."""
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


def intervals(found: dict[str, Estimate], label: str) -> Figure:
    """A row for each estimate, from the first on top: a point and its 95 % interval, on an axis with this label."""
    figure = Figure(figsize=(7.2, 0.9 + 0.3 * len(found)), layout="constrained")
    panel = figure.subplots()
    for row, estimate in enumerate(found.values()):
        panel.hlines(row, estimate.low, estimate.high, color="0.35", linewidth=1.5)
        panel.plot([estimate.value], [row], linestyle="", marker="o", color="black", markersize=5)
    panel.set_yticks(range(len(found)), [plain_text(name) for name in found])
    panel.set_ylim(len(found) - 0.4, -0.6)
    panel.set_xlabel(label)
    tidy(panel)
    return figure


def clean_beside_robust(comparison: Comparison, condition: str) -> Figure:
    """A line a method: its score clean (filled) and under the condition (open), and its drop ratio, with intervals."""
    methods = comparison.methods
    figure = Figure(figsize=(7.2, 1.3 + 0.42 * len(methods)), layout="constrained")
    scores, drops = figure.subplots(1, 2, sharey=True)
    for row, method in enumerate(methods):
        clean, corrupted = (comparison.value(method, [name]) for name in ("clean", condition))
        _whiskered(scores, clean, row - 0.14, "black", "clean" if row == 0 else "")
        _whiskered(scores, corrupted, row + 0.14, "white", condition_text(comparison, condition) if row == 0 else "")
        _whiskered(drops, comparison.drop(method, [condition]), row, "0.6", "")
    if not math.isnan(comparison.chance):
        scores.axvline(comparison.chance, color="0.35", linestyle=(0, (1, 3)), linewidth=1.2, label="chance")
    drops.axvline(0, color="0.1", linewidth=0.8)
    scores.set_yticks(range(len(methods)), [plain_text(method) for method in methods])
    scores.set_ylim(len(methods) - 0.5, -0.5)
    scores.set_xlabel(comparison.score.label)
    formula = "corrupted / clean" if comparison.score.higher_is_better else "clean / corrupted"
    drops.set_xlabel(f"drop ratio (1 − {formula};\nlower is better)")
    for panel in (scores, drops):
        tidy(panel)
        panel.tick_params(axis="y", length=0)
    legend(figure, scores)
    return figure


def _whiskered(panel: Axes, estimate: Estimate, place: float, fill: str, label: str) -> None:
    panel.hlines(place, estimate.low, estimate.high, color="0.1", linewidth=1.3)
    if len(estimate.seeds) > 1:
        panel.plot(
            estimate.seeds,
            [place] * len(estimate.seeds),
            linestyle="",
            marker="|",
            color="0.1",
            markersize=6,
            markeredgewidth=0.7,
        )
    panel.plot(
        [estimate.value],
        [place],
        linestyle="",
        marker="o",
        markersize=6.5,
        markerfacecolor=fill,
        markeredgecolor="0.1",
        label=label,
    )


def heat_map(comparison: Comparison) -> Figure:
    """Drop ratio of each method (columns) under each condition (rows), the number in its cell; darker loses more."""
    names, methods = comparison.corrupted, comparison.methods
    drops = np.array([[comparison.drop(method, [name]).value for method in methods] for name in names])
    highest = max(0.5, float(np.nanmax(drops, initial=0)))
    # Tall enough for its lines, wide enough for its numbers.
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
        range(len(methods)), [plain_text(method) for method in methods], rotation=40, ha="left", rotation_mode="anchor"
    )
    panel.xaxis.tick_top()
    panel.set_yticks(range(len(names)), [plain_text(condition_text(comparison, name)) for name in names])
    kinds = comparison.conditions.loc[names, ["kind", "modality"]]
    kinds = kinds["kind"].where(kinds["kind"] != "noisy", kinds["modality"]).to_list()
    for row in range(1, len(names)):
        if kinds[row] != kinds[row - 1]:
            panel.axhline(row - 0.5, color="0.1", linewidth=0.9)
    panel.tick_params(length=0)
    figure.colorbar(image, ax=panel, label="drop ratio (0 or less is white)", shrink=min(1, 8 / len(names)), aspect=15)
    return figure
