"""The verb `report`: all finished runs of an experiment in one page, figures and a table on the terminal."""

import base64
import io
import math
from pathlib import Path

import pandas as pd
from jinja2 import Environment, FileSystemLoader
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from .corruption.natural import NATURAL
from .figures import drop_bars, score_against_noise
from .report_texts import texts_section
from .robustness.comparison import Comparison, Estimate, Run, compare, load_runs
from .robustness.results import THRESHOLDS
from .schema import Config

RESAMPLES = 2000
"""Bootstrap resamples where the caller gives none."""
WIDTH = 100
"""Widest table on the terminal, in characters."""


def run(config: Config, args: dict[str, str]) -> None:
    """Writes `<output>/<experiment>/report/index.html` and its figures, and prints the table and the paths."""
    folder = Path(config.output) / config.experiment
    runs = load_runs(folder)
    for comparison in _compare_all(runs, config.robustness.resamples):
        print_table(comparison)
    page = build_report(folder, config.robustness.resamples)
    tracked = [max(paths) for run in runs if (paths := sorted((run.folder / "wandb").glob("*run-*")))]
    for title, paths in (("report", [page]), ("figures", sorted(page.parent.glob("*.png"))), ("W&B", tracked)):
        print("\n".join(f"{title:<8}{path}" for path in paths))


def build_report(experiment_folder: Path, resamples: int = RESAMPLES) -> Path:
    """Writes the page and its figures into `experiment_folder`/report and returns the page's path.

    Raises UserError where there is no finished run, or the runs on one data set share no test row.
    """
    runs = load_runs(experiment_folder)
    folder = experiment_folder / "report"
    folder.mkdir(exist_ok=True)
    for stale in folder.glob("*.png"):
        stale.unlink()
    sections = []
    for number, comparison in enumerate(_compare_all(runs, resamples), start=1):
        own = [run for run in runs if run.info["data"] == comparison.data]
        figures = {}
        for name, draw in [(comparison.metric, score_against_noise), ("drop", drop_bars)]:
            if (figure := draw(comparison)) is not None:
                buffer = io.BytesIO()
                figure.savefig(buffer, format="png", dpi=160)
                (folder / f"{name}-{number}.png").write_bytes(buffer.getvalue())
                figures[draw.__name__] = base64.b64encode(buffer.getvalue()).decode()
        sections.append(
            {
                "comparison": comparison,
                "rows": headline_rows(comparison),
                "primary": primary_rows(comparison),
                "sentences": sentences(comparison),
                "averages": average_rows(comparison),
                "further": further_rows(comparison, own),
                "damages": damages(comparison),
                "texts": texts_section(own),
                "figures": figures,
                "runs": own,
            }
        )
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"name": name_text, "number": number_text, "bounds": bounds_text, "signed": signed_text}
    page = environment.get_template("report.html.j2").render(
        experiment=experiment_folder.name, sections=sections, resamples=resamples
    )
    (folder / "index.html").write_text(page, encoding="utf-8")
    return folder / "index.html"


def _compare_all(runs: list[Run], resamples: int) -> list[Comparison]:
    """One comparison for each data set, in the order of their names."""
    names = sorted({run.info["data"] for run in runs})
    return [compare([run for run in runs if run.info["data"] == name], resamples) for name in names]


def number_text(value: float, digits: int = 3) -> str:
    """A number with fixed digits and a true minus sign; a dash for NaN, and "not reached" for infinity."""
    if math.isnan(value):
        return "–"
    return "not reached" if math.isinf(value) else f"{value:.{digits}f}".replace("-", "−")


def name_text(metric: str) -> str:
    """A metric's name in prose."""
    names = {"rmse": "RMSE", "rmse_log": "RMSE (log)", "r2": "R²", "macro_f1": "macro F1", "ece": "ECE"}
    return names.get(metric, metric)


def signed_text(value: float) -> str:
    """A difference with its sign."""
    return ("+" if value > 0 else "") + number_text(value)


def bounds_text(estimate: Estimate, digits: int = 2) -> str:
    """The interval in brackets, or nothing where it is not known."""
    if math.isnan(estimate.low):
        return ""
    return f"[{number_text(estimate.low, digits)}, {number_text(estimate.high, digits)}]"


def difference_text(estimate: Estimate) -> str:
    """A difference with its interval, in digits enough to see on which side of 0 it ends."""
    return f"{signed_text(estimate.value)} {bounds_text(estimate, 3)}".strip()


def headline_rows(comparison: Comparison) -> list[dict]:
    """Rows of the large table: a `heading` each, or a `label` with a `cells` entry per method."""
    rows: list[dict] = [_row(comparison, "clean", ["clean"])]
    modalities = comparison.conditions["modality"]
    for modality in dict.fromkeys(modalities[comparison.select("noisy")]):
        rows.append({"heading": f"noise on {'all modalities' if modality == 'all' else modality}"})
        for name in comparison.select("noisy", modality):
            rows.append(_row(comparison, f"level {comparison.conditions['level'][name]:g}", [name]))
    for kind, heading in [("missing", "missing at test time"), ("order", "another order")]:
        if names := comparison.select(kind):
            rows.append({"heading": heading})
            column = modalities.str.replace("+", ", ") if kind == "missing" else comparison.conditions["order"]
            rows += [_row(comparison, column[name].replace(",", ", ").replace("  ", " "), [name]) for name in names]
            if len(names) > 1:
                rows.append(_row(comparison, f"mean of {len(names)}", names))
    if names := comparison.select("attack"):
        rows += [{"heading": "rewritten against the method"}, _row(comparison, "attack", names)]
    return rows + _realistic_rows(comparison)


def _realistic_rows(comparison: Comparison) -> list[dict]:
    """The realistic damage: a heading a modality, a row a sort and level, and their mean."""
    rows: list[dict] = []
    about = comparison.conditions.loc[comparison.select("natural")]
    for modality, same in about.groupby("modality", sort=False):
        rows.append({"heading": f"realistic damage to {modality}"})
        rows += [_row(comparison, f"{damage.corruption}, level {damage.level:g}", [damage.Index])
                 for damage in same.itertuples()]
        if len(same) > 1:
            rows.append(_row(comparison, f"mean of {len(same)}", list(same.index)))
    return rows


def _row(comparison: Comparison, label: str, names: list[str]) -> dict:
    cells = []
    for method in comparison.methods:
        exposures = {comparison.exposure(method, name) for name in names}
        cells.append(
            {
                "method": method,
                "score": comparison.value(method, names),
                "drop": None if names == ["clean"] else comparison.drop(method, names),
                "difference": None if method == comparison.reference else comparison.difference(method, names),
                "exposure": exposures.pop() if len(exposures) == 1 else None,
            }
        )
    return {"label": label, "cells": cells}


def primary_endpoint(comparison: Comparison) -> str | None:
    """The condition that methods are judged by: noise on all modalities at the tested level nearest to 0.5.

    Data with a single modality have noise on that one. None where nothing was tested under noise.
    """
    found = comparison.select("noisy", "all", comparison.middle) or comparison.select("noisy", level=comparison.middle)
    return found[0] if len(found) == 1 else None


def primary_rows(comparison: Comparison) -> list[dict]:
    """The primary endpoint of each method: drop ratio, and its paired difference from the reference."""
    endpoint = primary_endpoint(comparison)
    if endpoint is None:
        return []
    return [
        {
            "method": method,
            "clean": comparison.value(method, ["clean"]),
            "corrupted": comparison.value(method, [endpoint]),
            "drop": comparison.drop(method, [endpoint]),
            "difference": None if method == comparison.reference else comparison.drop_difference(method, [endpoint]),
        }
        for method in comparison.methods
    ]


def sentences(comparison: Comparison) -> list[str]:
    """What the numbers say, won or lost: the primary endpoint, the clean score, and the count of conditions."""
    found = []
    reference, corrupted = comparison.reference, comparison.corrupted
    if primary := primary_rows(comparison):
        drop = primary[0]["drop"]
        found.append(
            f"Primary endpoint, {primary_endpoint(comparison)}: {reference} has a drop ratio of "
            f"{number_text(drop.value)} {bounds_text(drop)}."
        )
    for row in primary[1:]:
        difference = row["difference"]
        if math.isnan(difference.low):
            verdict = "its interval is not known."
        elif not difference.excludes_zero:
            verdict = f"the interval contains 0, so no difference from {reference} is shown."
        elif difference.high < 0:
            verdict = f"the interval lies below 0: it loses less than {reference}."
        else:
            verdict = f"the interval lies above 0: it loses more than {reference}."
        found.append(
            f"{row['method']} has {number_text(row['drop'].value)} {bounds_text(row['drop'])}; the paired difference "
            f"is {difference_text(difference)}, {verdict}"
        )
    for method in comparison.methods[1:]:
        clean = comparison.difference(method, ["clean"])
        drops = [comparison.drop_difference(method, [name]) for name in corrupted]
        better = [drop for drop in drops if drop.value < 0]
        worse = [drop for drop in drops if drop.value > 0]
        sure = [sum(drop.excludes_zero for drop in side) for side in (better, worse)]
        found.append(
            f"{method} against {reference}: clean {name_text(comparison.metric)} {difference_text(clean)}; of "
            f"{len(drops)} corrupted conditions it has a lower drop ratio in {len(better)} (interval without 0 in "
            f"{sure[0]}) and a higher one in {len(worse)} (interval without 0 in {sure[1]})."
        )
    return found


def average_rows(comparison: Comparison) -> list[dict]:
    """Per method, the mean drop ratio over the conditions of a sort that training saw, and over the unseen ones."""
    rows = []
    for method in comparison.methods:
        if comparison.perturbations[method] is None:
            continue
        row: dict = {"method": method, "perturbation": comparison.perturbations[method]}
        for exposure in ("seen", "unseen"):
            names = [name for name in comparison.corrupted if comparison.exposure(method, name) == exposure]
            row[exposure] = {
                "count": len(names),
                "drop": comparison.drop(method, names) if names else None,
                "difference": comparison.drop_difference(method, names)
                if names and method != comparison.reference
                else None,
            }
        rows.append(row)
    return rows


FURTHER = ("kappa", "macro_f1", "ece", "rmse", "r2")
"""Metrics beside the main one that the report shows under noise, where a run has them."""


def further_rows(comparison: Comparison, runs: list[Run]) -> list[dict]:
    """Per method and damage (noise on a modality, or a realistic one of several levels): area under the curve,
    breakdown levels, further metrics at the middle level; means over seeds.
    """
    rows = []
    for method in comparison.methods:
        results = pd.concat([run.results for run in runs if run.info["name"] == method])
        metrics = [name for name in FURTHER if name != comparison.metric and name in set(results["metric"])]
        for kind in ("noisy", "natural"):
            same = results[results["condition"] == kind]
            curves, points = (some.groupby(["corruption", "modality", "metric"], sort=False)["value"].mean() for some in
                              (same[same["level"].isna()], same[same["level"] == comparison.middle_of(kind)]))
            for key in dict.fromkeys(curve[:2] for curve in curves.index):
                rows.append({
                    "method": method,
                    "damage": key[0] or f"noise, {key[1]}",
                    "area": curves.get((*key, "area_under_curve"), math.nan),
                    "breakdown": [curves.get((*key, f"breakdown_{level:g}"), math.nan) for level in THRESHOLDS],
                    "further": {name_text(metric): points.get((*key, metric), math.nan) for metric in metrics},
                })
    return rows


def damages(comparison: Comparison) -> dict[str, str]:
    """What the level of each tested realistic damage means."""
    names = dict.fromkeys(comparison.conditions["corruption"][comparison.select("natural")])
    return {name: NATURAL[name].unit for name in names if name in NATURAL}


def print_table(comparison: Comparison, console: Console | None = None) -> None:
    """Prints the score, drop ratio and the paired difference of each method under the main conditions."""
    console = console or Console()
    level = comparison.middle
    modality = comparison.conditions["modality"]
    groups = [("clean", ["clean"])]
    groups += [(f"noise {level:g}\n{modality[name]}", [name]) for name in comparison.select("noisy", level=level)]
    groups += [(f"{label}\n(mean)", names) for kind, label in
               (("missing", "missing"), ("order", "order"), ("natural", "realistic"))
               if (names := comparison.select(kind))]
    groups += [(name, [name]) for name in comparison.select("attack")]
    table = Table(
        title=f"{comparison.data}: {comparison.rows} test rows, chance {number_text(comparison.chance)}",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        width=min(WIDTH, console.width),
    )
    table.add_column("condition")
    table.add_column("method", overflow="fold")
    metric = name_text(comparison.metric)
    for name in (f"{metric} [95 %]", "drop ratio [95 %]", f"{metric} - {comparison.reference}"):
        table.add_column(name, justify="right")
    for label, names in groups:
        # A condition of two lines labels the first methods' rows, so that the column stays narrow.
        labels = label.split("\n")
        for index, cell in enumerate(_row(comparison, label, names)["cells"]):
            drop, difference = cell["drop"], cell["difference"]
            table.add_row(
                labels[index] if index < len(labels) else "",
                cell["method"],
                f"{number_text(cell['score'].value)} {bounds_text(cell['score'])}",
                f"{number_text(drop.value)} {bounds_text(drop)}" if drop else "",
                difference_text(difference) if difference else "",
                end_section=index == len(comparison.methods) - 1,
            )
    console.print(table)
    for sentence in sentences(comparison):
        console.print(sentence, markup=False, highlight=False)
