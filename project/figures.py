"""The report's figures. Methods differ in colour, line style, marker and hatch, so that they print in grey too."""

import math

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .modality import REGISTRY
from .robustness.comparison import Comparison, Estimate

# Colours of Okabe and Ito 2008, which colour-blind readers can tell apart.
STYLES = [
    ("#000000", "-", "o", ""),
    ("#0072B2", "--", "s", "///"),
    ("#D55E00", "-.", "^", "..."),
    ("#009E73", ":", "D", "xxx"),
    ("#CC79A7", (0, (5, 1, 1, 1, 1, 1)), "v", "\\\\\\"),
    ("#E69F00", (0, (8, 2)), "P", "ooo"),
]


def _plain(text: str) -> str:
    """The text without the meaning that matplotlib gives to dollar signs."""
    return text.replace("$", r"\$")


def _style(index: int) -> tuple:
    return STYLES[index % len(STYLES)]


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=min(3, len(labels)), frameon=False, fontsize=10)


def score_against_noise(comparison: Comparison) -> Figure | None:
    """The score over noise level, a panel per corrupted modality; bands are 95 % intervals, thin points single seeds.

    None where nothing was tested under noise.
    """
    conditions = comparison.conditions
    targets = list(dict.fromkeys(conditions["modality"][conditions["kind"] == "noisy"]))
    if not targets:
        return None
    rows = math.ceil(len(targets) / 2)
    figure = Figure(figsize=(7.2, 0.7 + 3.1 * rows), layout="constrained")
    panels = figure.subplots(rows, min(2, len(targets)), squeeze=False, sharey=True).ravel()
    for panel, target in zip(panels, targets, strict=False):
        names = ["clean", *comparison.select("noisy", target)]
        levels = conditions["level"][names].to_list()
        for index, method in enumerate(comparison.methods):
            colour, line, marker, _ = _style(index)
            estimates = [comparison.value(method, [name]) for name in names]
            low, high = [estimate.low for estimate in estimates], [estimate.high for estimate in estimates]
            panel.fill_between(levels, low, high, color=colour, alpha=0.12, linewidth=0)
            panel.plot(
                levels,
                [estimate.value for estimate in estimates],
                color=colour,
                linestyle=line,
                marker=marker,
                markersize=5,
                label=_plain(method),
            )
            _seed_points(panel, levels, estimates, colour, marker)
        if not math.isnan(comparison.chance):
            panel.axhline(comparison.chance, color="0.35", linestyle=(0, (1, 3)), linewidth=1.2, label="chance")
        panel.set_title(f"noise on {'all modalities' if target == 'all' else target}", fontsize=11)
        unit = REGISTRY[target].unit if target in REGISTRY else "on all modalities at once"
        panel.set_xlabel(f"noise level\n({unit})")
        panel.set_xticks(levels)
        panel.set_xlim(-0.03, max(levels) + 0.03)
        if comparison.metric == "accuracy":
            panel.set_ylim(0, 1)
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
    for panel in panels[len(targets) :]:
        panel.set_visible(False)
    for panel in panels[::2]:
        panel.set_ylabel(comparison.score.label)
    _legend(figure, panels[0])
    return figure


def _seed_points(panel: Axes, levels: list[float], estimates: list[Estimate], colour: str, marker: str) -> None:
    for level, estimate in zip(levels, estimates, strict=True):
        if len(estimate.seeds) > 1:
            panel.plot(
                [level] * len(estimate.seeds),
                estimate.seeds,
                linestyle="",
                marker=marker,
                markersize=3,
                markerfacecolor="none",
                markeredgecolor=colour,
                markeredgewidth=0.5,
                alpha=0.7,
            )


def drop_bars(comparison: Comparison) -> Figure | None:
    """Drop ratio under noise of the middle level, missing modalities, orders, realistic damage and the attack, as bars.

    Whiskers are 95 % intervals, thin points single seeds. None where nothing was tested but clean rows.
    """
    level = comparison.middle
    modality = comparison.conditions["modality"]
    rows = [(f"noise {level:g}: {modality[name]}", [name]) for name in comparison.select("noisy", level=level)]
    rows += [("missing: " + modality[name].replace("+", ", "), [name]) for name in comparison.select("missing")]
    if orders := comparison.select("order"):
        rows.append((f"other order\n(mean of {len(orders)})", orders))
    for target in dict.fromkeys(modality[comparison.select("natural")]):
        names = comparison.select("natural", target)
        rows.append((f"realistic: {target}\n(mean of {len(names)})", names))
    rows += [("attack", [name]) for name in comparison.select("attack")]
    if not rows:
        return None
    methods = comparison.methods
    figure = Figure(figsize=(7.2, 1.2 + len(rows) * (0.2 + 0.17 * len(methods))), layout="constrained")
    panel = figure.subplots()
    height = 0.82 / len(methods)
    for index, method in enumerate(methods):
        colour, _, marker, hatch = _style(index)
        estimates = [comparison.drop(method, names) for _, names in rows]
        places = [row + (index - (len(methods) - 1) / 2) * height for row in range(len(rows))]
        panel.barh(
            places,
            [estimate.value for estimate in estimates],
            height=height,
            facecolor="0.8" if index == 0 else "white",
            edgecolor=colour,
            hatch=hatch,
            linewidth=0.8,
            label=_plain(method),
        )
        low, high = [estimate.low for estimate in estimates], [estimate.high for estimate in estimates]
        panel.hlines(places, low, high, color="0.1", linewidth=1.4)
        for place, estimate in zip(places, estimates, strict=True):
            if len(estimate.seeds) > 1:
                panel.plot(estimate.seeds, [place] * len(estimate.seeds), "o", ms=2.5, mfc="white", mec="0.1", mew=0.5)
    panel.set_yticks(range(len(rows)), [label for label, _ in rows])
    panel.set_ylim(len(rows) - 0.5, -0.5)
    panel.axvline(0, color="0.1", linewidth=0.8)
    formula = "corrupted / clean" if comparison.score.higher_is_better else "clean / corrupted"
    panel.set_xlabel(f"drop ratio (1 - {formula} {comparison.metric}; lower is better)")
    panel.grid(axis="x", alpha=0.25)
    panel.spines[["top", "right", "left"]].set_visible(False)
    panel.tick_params(axis="y", length=0)
    _legend(figure, panel)
    return figure
