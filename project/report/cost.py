"""The report's part on what was paid for the robustness, and on how it was measured."""

import math

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from ..corruption.natural import NATURAL
from ..evaluation.comparison import Comparison
from ..evaluation.primary_endpoint import primary_condition
from .figures import legend, legible, plain_text, style, tidy
from .formatting import condition_text
from .section import Section

COSTS = {
    "train_seconds": "seconds of training",
    "evaluate_seconds": "seconds of evaluation,\ntexts from the store",
    "tokens": "LLM tokens, in and out",
    "generations": "LLM calls",
}
"""Each cost that robustness is set against, by its column."""
TOLD = ("seed", "perturbation", "rows", "steps", "forward_samples", "val", "empty_texts", "hardware", "versions", "git")
"""What the table of runs tells of run.json."""


def cost(comparison: Comparison) -> Section:
    """The costs of all runs, each cost against the primary endpoint's drop ratio, and what the runs were."""
    runs = [(method, run) for method in comparison.methods for run in comparison.runs[method]]
    table = cost_table(comparison)
    known = primary_condition(comparison) and table[list(COSTS)].notna().any(axis=None)
    figures = {
        f"cost{suffix}": cost_against_robustness(comparison, table, methods)
        for suffix, methods in legible(comparison.methods).items()
        if known
    }
    levels = sorted(comparison.conditions["level"][comparison.select("noisy")].unique())
    told = pd.json_normalize(
        [
            {"method": method, "folder": str(run.folder)} | {key: run.info.to_dict().get(key) for key in TOLD}
            for method, run in runs
        ]
    )
    values = {"runs": runs, "levels": levels, "damages": damages(comparison)}
    return Section("cost.html.j2", values, {"cost": table, "runs": told}, figures)


def damages(comparison: Comparison) -> dict[str, str]:
    """What the level of each tested realistic damage means."""
    names = dict.fromkeys(comparison.conditions["corruption"][comparison.select("natural")])
    return {name: NATURAL[name].unit for name in names if name in NATURAL}


def cost_table(comparison: Comparison) -> pd.DataFrame:
    """What each run took: seconds, and all generations that it used, those included that the store had already.

    Where run.json does not tell something it is NaN; a run whose texts come from no language model used none.
    """
    found = []
    for method in comparison.methods:
        for run in comparison.runs[method]:
            llm, seconds = run.info.llm, run.info.seconds
            tokens = [llm.get(name, math.nan) for name in ("prompt_tokens", "completion_tokens")]
            found.append(
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
    return pd.DataFrame(found)


def cost_against_robustness(comparison: Comparison, table: pd.DataFrame, methods: list[str]) -> Figure:
    """Drop ratio at the primary endpoint over each cost, means over seeds; whiskers are 95 % intervals."""
    condition = primary_condition(comparison)
    figure = Figure(figsize=(7.2, 6.2 + 0.1 * len(methods)), layout="constrained")
    panels = figure.subplots(2, 2, sharey=True).ravel()
    means = table[table["method"].isin(methods)].groupby("method")[list(COSTS)].mean()
    for panel, (name, text) in zip(panels, COSTS.items(), strict=True):
        for method in methods:
            colour, _, marker = style(comparison, method)
            drop, x = comparison.drop(method, [condition]), means.loc[method, name]
            panel.vlines(x, drop.low, drop.high, color=colour, linewidth=1)
            panel.plot(
                [x], [drop.value], linestyle="", marker=marker, color=colour, markersize=7, label=plain_text(method)
            )
        if means[name].max() > 0:
            panel.set_xlim(-0.05 * means[name].max(), 1.05 * means[name].max())
        panel.xaxis.set_major_formatter(EngFormatter(sep=""))
        panel.set_xlabel(text)
        tidy(panel)
    for panel in panels[::2]:
        panel.set_ylabel(f"drop ratio, {condition_text(comparison, condition)}", fontsize=9)
    legend(figure, panels[0])
    return figure
