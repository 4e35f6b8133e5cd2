"""The section on the cost of the methods and the settings of the evaluation."""

import math

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from ..corruption.natural import NATURAL
from ..evaluation.comparison import Comparison
from ..evaluation.primary_endpoint import primary_condition
from .figures import add_legend, escape_mathtext, method_style, split_methods, style_axes
from .formatting import condition_text
from .section import Section

COSTS = {
    "train_seconds": "seconds of training",
    "evaluate_seconds": "seconds of evaluation\n(texts from the store)",
    "tokens": "LLM tokens, prompts and completions",
    "generations": "LLM calls",
}
"""Columns of the costs that are plotted against robustness, and their axis labels."""
RUN_INFO_KEYS = (
    "seed",
    "perturbation",
    "rows",
    "steps",
    "forward_samples",
    "val",
    "empty_texts",
    "hardware",
    "versions",
    "git",
)
"""Keys of run.json in the table of runs."""


def cost(comparison: Comparison) -> Section:
    """Return the costs and settings of all runs, and figures of the drop ratio against each cost."""
    runs = [(method, run) for method in comparison.methods for run in comparison.runs[method]]
    table = cost_table(comparison)
    plotted = primary_condition(comparison) and table[list(COSTS)].notna().any(axis=None)
    figures = {
        f"cost{suffix}": cost_against_robustness(comparison, table, methods)
        for suffix, methods in split_methods(comparison.methods).items()
        if plotted
    }
    levels = sorted(comparison.conditions["level"][comparison.select("noisy")].unique())
    run_table = pd.json_normalize(
        [
            {"method": method, "folder": str(run.folder)} | {key: run.info.to_dict().get(key) for key in RUN_INFO_KEYS}
            for method, run in runs
        ]
    )
    values = {"runs": runs, "levels": levels, "corruption_units": corruption_units(comparison)}
    return Section("cost.html.j2", values, {"cost": table, "runs": run_table}, figures)


def corruption_units(comparison: Comparison) -> dict[str, str]:
    """Return what the level of each tested realistic corruption means."""
    names = dict.fromkeys(comparison.conditions["corruption"][comparison.select("natural")])
    return {name: NATURAL[name].unit for name in names if name in NATURAL}


def cost_table(comparison: Comparison) -> pd.DataFrame:
    """Return one row per run: its seconds, and the generations that it used, including stored ones.

    Values that run.json lacks are NaN, such as the generations of a run without a language model.
    """
    rows = []
    for method in comparison.methods:
        for run in comparison.runs[method]:
            llm, seconds = run.info.llm, run.info.seconds
            tokens = [llm.get(name, math.nan) for name in ("prompt_tokens", "completion_tokens")]
            rows.append(
                {
                    "method": method,
                    "seed": run.info.seed,
                    **{f"{name}_seconds": seconds.get(name, math.nan) for name in ("train", "evaluate")},
                    "generations": llm.get("generations", math.nan),
                    "prompt_tokens": tokens[0],
                    "completion_tokens": tokens[1],
                    "tokens": sum(tokens),
                    "llm_seconds": llm.get("seconds", math.nan),
                    "new_calls": llm.get("calls", math.nan),
                    "fallbacks": llm.get("fallbacks", math.nan),
                    "texts": llm.get("texts", math.nan),
                }
            )
    return pd.DataFrame(rows)


def cost_against_robustness(comparison: Comparison, table: pd.DataFrame, methods: list[str]) -> Figure:
    """Plot the drop ratio at the primary endpoint against each cost, means over seeds; lines are 95 % intervals."""
    condition = primary_condition(comparison)
    figure = Figure(figsize=(7.2, 6.2 + 0.1 * len(methods)), layout="constrained")
    panels = figure.subplots(2, 2, sharey=True).ravel()
    means = table[table["method"].isin(methods)].groupby("method")[list(COSTS)].mean()
    for panel, (name, text) in zip(panels, COSTS.items(), strict=True):
        for method in methods:
            colour, _, marker = method_style(comparison, method)
            drop, x = comparison.drop(method, [condition]), means.loc[method, name]
            panel.vlines(x, drop.low, drop.high, color=colour, linewidth=1)
            panel.plot(
                [x],
                [drop.value],
                linestyle="",
                marker=marker,
                color=colour,
                markersize=7,
                label=escape_mathtext(method),
            )
        if means[name].max() > 0:
            panel.set_xlim(-0.05 * means[name].max(), 1.05 * means[name].max())
        else:  # no method has this cost
            panel.set_xticks([0])
        panel.xaxis.set_major_formatter(EngFormatter(sep=""))
        panel.set_xlabel(text)
        style_axes(panel)
    for panel in panels[::2]:
        panel.set_ylabel(f"drop ratio, {condition_text(comparison, condition)}", fontsize=9)
    add_legend(figure, panels[0])
    return figure
