"""The section on all conditions: main table, curves, heat map, single seeds, seen and unseen corruptions."""

import pandas as pd

from ..evaluation.comparison import Comparison
from ..evaluation.curves import curves
from ..evaluation.primary_endpoint import primary_condition
from .figures import heat_map, score_against_level
from .formatting import condition_text, noise_text
from .section import Section, estimate_columns

HEADINGS = {
    "missing": "missing modalities",
    "order": "order of the modalities",
    "natural": "realistic corruption",
    "attack": "adversarial rewriting",
}
"""Headings of kinds of conditions in tables; other kinds have their own name."""
CURVES = {"curves": "noisy", "natural": "natural"}
"""Names of the figures of curves, and the kind of conditions in each."""
EXPOSURES = ("seen", "unseen")


def conditions(comparison: Comparison) -> Section:
    """Return score, drop ratio and difference from the reference under each condition, as tables and figures."""
    averages = average_rows(comparison)
    figures = {
        f"{name}{number}": figure
        for name, kind in CURVES.items()
        for number, figure in score_against_level(comparison, kind).items()
    }
    figures |= {"drops": heat_map(comparison)} if comparison.corrupted else {}
    tables = {"conditions": condition_table(comparison), "seeds": seed_table(comparison)}
    if averages:
        tables["exposure"] = pd.DataFrame(
            [
                {
                    "method": row["method"],
                    "perturbation": row["perturbation"],
                    "exposure": exposure,
                    "conditions": row[exposure]["count"],
                    **estimate_columns("drop_ratio", row[exposure]["drop"]),
                    **estimate_columns("difference", row[exposure]["difference"]),
                }
                for row in averages
                for exposure in EXPOSURES
            ]
        )
    values = {
        "rows": headline_rows(comparison),
        "averages": averages,
        "seeds": seed_rows(comparison),
        "order_invariant": order_invariant_methods(comparison),
        "exposures": EXPOSURES,
        "curves": [name for name in figures if name.startswith("curves")],
        "natural": [name for name in figures if name.startswith("natural")],
    }
    return Section("conditions.html.j2", values, tables, figures)


def headline_rows(comparison: Comparison) -> list[dict]:
    """Return the rows of the main table: either a `heading`, or a `label` and `cells`, one per method."""
    rows: list[dict] = [cell_row(comparison, "clean", ["clean"])]
    for curve in curves(comparison, ["noisy"]):
        rows.append({"heading": f"noise on {noise_text(curve.modality)}"})
        for name, level in list(zip(curve.names, curve.levels, strict=True))[1:]:
            rows.append(cell_row(comparison, f"level {level:g}", [name]))
    for kind in further_kinds(comparison):
        rows.append({"heading": HEADINGS.get(kind, kind)})
        names = comparison.select(kind)
        rows += [cell_row(comparison, condition_text(comparison, name), [name]) for name in names]
        if len(names) > 1:
            rows.append(cell_row(comparison, f"mean of {len(names)}", names))
    return rows


def further_kinds(comparison: Comparison) -> list[str]:
    """Return the kinds of conditions other than clean and noisy."""
    return [kind for kind in comparison.conditions["kind"].unique() if kind not in ("clean", "noisy")]


def cell_row(comparison: Comparison, label: str, names: list[str]) -> dict:
    """Return one row of the main table: the mean over the conditions `names`, of each method."""
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


def condition_table(comparison: Comparison) -> pd.DataFrame:
    """Return the main table with one row per condition and method; differences are from the reference."""
    rows = []
    for name, condition in comparison.conditions.iterrows():
        for cell in cell_row(comparison, name, [name])["cells"]:
            rows.append(
                {
                    "condition": name,
                    **condition,
                    "method": cell["method"],
                    **estimate_columns(comparison.metric, cell["score"]),
                    **estimate_columns("drop_ratio", cell["drop"]),
                    **estimate_columns("difference", cell["difference"]),
                    "exposure": cell["exposure"],
                }
            )
    return pd.DataFrame(rows)


def seed_table(comparison: Comparison) -> pd.DataFrame:
    """Return score and drop ratio of every seed, with one row per method, seed and condition."""
    rows = []
    for method, runs in comparison.runs.items():
        for name in comparison.conditions.index:
            values, drops = (measure(method, [name]).seeds for measure in (comparison.value, comparison.drop))
            rows += [
                {
                    "method": method,
                    "seed": run.info.seed,
                    "condition": name,
                    comparison.metric: value,
                    "drop_ratio": drop,
                }
                for run, value, drop in zip(runs, values, drops, strict=True)
            ]
    return pd.DataFrame(rows)


def seed_rows(comparison: Comparison) -> dict:
    """Return every seed under the main conditions: `header`, and `rows` of method, seed and score or drop ratio."""
    condition = primary_condition(comparison)
    columns = {"clean": comparison.value, **({condition: comparison.value} if condition else {})}
    header = [condition_text(comparison, name) if name == condition else name for name in columns]
    drops = [[condition]] if condition else []
    header += [f"{header[-1]}: drop ratio"] if condition else []
    for kind in further_kinds(comparison):
        drops.append(comparison.select(kind))
        header.append(f"{HEADINGS.get(kind, kind)}: mean drop ratio")
    rows = []
    for method in comparison.methods:
        values = [measure(method, [name]).seeds for name, measure in columns.items()]
        values += [comparison.drop(method, names).seeds for names in drops]
        rows += [
            {"method": method, "seed": run.info.seed, "values": seed_values}
            for run, *seed_values in zip(comparison.runs[method], *values, strict=True)
        ]
    return {"header": header, "rows": rows}


def average_rows(comparison: Comparison) -> list[dict]:
    """Return per method the mean drop ratio over the corruptions seen in training, and over the unseen ones."""
    rows = []
    for method in comparison.methods:
        if comparison.perturbation(method) is None:
            continue
        row: dict = {"method": method, "perturbation": comparison.perturbation(method)}
        for exposure in EXPOSURES:
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


def order_invariant_methods(comparison: Comparison) -> list[str]:
    """Return the methods whose predictions are equal in every order of the modalities."""
    orders = comparison.select("order")

    def is_invariant(predictions: pd.DataFrame) -> bool:
        rows = predictions[predictions["condition"].isin(["clean", *orders])]
        return set(orders) <= set(rows["condition"]) and rows.groupby("record")["prediction"].nunique().max() == 1

    return [
        method
        for method in comparison.methods
        if orders and all(is_invariant(run.predictions) for run in comparison.runs[method])
    ]
