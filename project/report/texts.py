"""The section on texts: collapse, recovery, quality of perturbations, and examples of records."""

import json
import math
from collections.abc import Callable

import pandas as pd

from ..evaluation.comparison import Comparison, Estimate
from ..evaluation.results import conditions_of
from ..evaluation.run_loading import Run
from ..metrics.scores import SCORES
from ..pipeline.text_log import TEXTS_FILE
from .formatting import condition_text
from .section import Section
from .text_diff import word_diff

CORRUPTED_CARDS = {"worse": 2, "better": 1, "unchanged": 1}
"""Number of example test records by the effect of the corruption on the prediction."""
PERTURBED_CARDS = 3
"""Number of example training records."""
REMOVED = {"table": "cells of the table", "text": "words of the text", "image": "words about the image"}
"""What a corruption removes, by modality."""


def texts(comparison: Comparison) -> Section | None:
    """Return the measures of the texts, with a CSV of each table, and example records; None if no run has texts.

    All seeds have the same texts, so each method is represented by its first run with texts. A method has tables if
    the verb `analyse` has measured this run.
    """
    saved = {
        method: [run for run in runs if (run.folder / TEXTS_FILE).is_file()] for method, runs in comparison.runs.items()
    }
    first = {method: runs[0] for method, runs in saved.items() if runs}
    if not first:
        return None
    run_texts = {name: pd.read_parquet(run.folder / TEXTS_FILE) for name, run in first.items()}
    example = max(run_texts, key=lambda name: _changing_steps(run_texts[name]))
    measured = {
        table: {
            name: pd.read_parquet(run.folder / f"{table}.parquet")
            for name, run in first.items()
            if (run.folder / f"{table}.parquet").is_file()
        }
        for table in ("transformation", "collapse", "recovery", "diversity")
    }
    condition = example_condition(first[example], run_texts[example])
    values = {
        "condition": condition and condition_text(comparison, condition),
        "transformation": _merge_equal(measured["transformation"], lambda name, table: transformation_rows(table)),
        "collapse": _merge_equal(
            measured["collapse"], lambda name, table: collapse_rows(comparison, table, run_texts[name], condition)
        ),
        "recovery": _merge_equal(measured["recovery"], lambda name, table: recovery_rows(comparison, table)),
        "diversity": _merge_equal(measured["diversity"], lambda name, table: diversity_rows(table)),
        "example_method": example,
        "corrupted_cards": corrupted_cards(first[example], run_texts[example], condition) if condition else [],
        "perturbed_cards": perturbed_cards(run_texts[example]),
    }
    tables = {
        table: pd.concat(by_method, names=["method"]).reset_index("method")
        for table, by_method in measured.items()
        if by_method
    }
    return Section("texts.html.j2", values, tables)


def _aligns(texts: pd.DataFrame) -> bool:
    return bool((texts["described"] != texts["aligned"]).any())


def _changing_steps(texts: pd.DataFrame) -> tuple[bool, ...]:
    """Rank a run as an example: texts rewritten by a model, perturbed texts, aligned texts."""
    return bool(texts["instruction"].notna().any()), bool(texts["round"].notna().any()), _aligns(texts)


def example_condition(run: Run, texts: pd.DataFrame) -> str | None:
    """Return the last noise condition with saved texts, else the last corrupted condition, else None."""
    conditions = conditions_of(run.predictions)
    saved = conditions[conditions.index.isin(set(texts["condition"][texts["split"] == "test"]) - {"clean"})]
    noisy = saved.index[(saved["kind"] == "noisy").to_numpy()]
    return next(iter([*reversed(noisy), *reversed(saved.index)]), None)


def _merge_equal(tables: dict[str, pd.DataFrame], to_rows: Callable[[str, pd.DataFrame], list[dict]]) -> list[dict]:
    """Return the rows of each table, once for all methods with equal rows: dicts of `names` and `rows`."""
    entries: dict[str, dict] = {}
    for name, table in tables.items():
        rows = to_rows(name, table)
        entries.setdefault(repr(rows), {"names": [], "rows": rows})["names"].append(name)
    return [entry for entry in entries.values() if entry["rows"]]


def transformation_rows(table: pd.DataFrame) -> list[dict]:
    """Return one row per modality."""
    return [
        {"modality": modality, "n": int(part["n"].iloc[0]), **_estimates(part)}
        for modality, part in table.groupby("modality", sort=False)
    ]


def collapse_rows(
    comparison: Comparison, table: pd.DataFrame, texts: pd.DataFrame, condition: str | None
) -> list[dict]:
    """Return one row per step that changes texts, for clean test rows, test rows of `condition`, and training rows."""
    rows = []
    for split, name, label in (
        ("test", "clean", "test, clean"),
        *([("test", condition, f"test, {condition_text(comparison, condition)}")] if condition else []),
        ("train", "clean", "training"),
    ):
        part = table[(table["split"] == split) & (table["condition"] == name)]
        for step in ("described", "aligned", "perturbed"):
            measures = part[(part["arrow"] == step) & (part["round"].fillna(0) == 0)]
            if len(measures) and (step != "aligned" or _aligns(texts)):
                rows.append({"rows": label, "step": step, "n": int(measures["n"].max()), **_estimates(measures)})
    return rows


def recovery_rows(comparison: Comparison, table: pd.DataFrame) -> list[dict]:
    """Return one row per condition and corrupted modality: number of removed items, share of each outcome."""
    rows = []
    for (condition, modality), part in table.groupby(["condition", "modality"], sort=False):
        shares = part[part["measure"] != "untraceable"]
        if len(shares):
            untraceable = part["count"][part["measure"] == "untraceable"].sum()
            rows.append(
                {
                    "condition": condition_text(comparison, condition),
                    "removed": REMOVED.get(modality, f"words about the {modality}"),
                    "n": int(shares["n"].iloc[0]),
                    "untraceable": int(untraceable),
                    **_estimates(shares),
                }
            )
    return rows


def diversity_rows(table: pd.DataFrame) -> list[dict]:
    """Return one row for all perturbed texts, and one per instruction set."""
    return [
        {"instruction": instruction, "n": int(part["n"].iloc[0]), **_estimates(part)}
        for instruction, part in table.groupby("instruction", sort=False)
    ]


def _estimates(part: pd.DataFrame) -> dict[str, Estimate]:
    return {row.measure: Estimate(row.value, row.low, row.high) for row in part.itertuples()}


def corrupted_cards(run: Run, texts: pd.DataFrame, condition: str) -> list[dict]:
    """Return cards of a few test records, clean and under the condition, with the changes at each step.

    The records are those with the largest changes of the score in each direction, ties in the order of their ids, and
    the first ones without a change.
    """
    score = SCORES[run.info.metric]
    predictions = {
        name: run.predictions[run.predictions["condition"] == name].set_index("record").sort_index()
        for name in ("clean", condition)
    }
    values = {
        name: pd.Series(score.of_rows(rows["target"], rows["prediction"]), rows.index)
        for name, rows in predictions.items()
    }
    change = (values[condition] - values["clean"]) * (1 if score.higher_is_better else -1)
    by_outcome = {
        "worse": change[change < 0].sort_values(kind="stable"),
        "better": change[change > 0].sort_values(ascending=False, kind="stable"),
        "unchanged": change[change == 0],
    }
    test = texts[texts["split"] == "test"]
    condition_texts = {name: test[test["condition"] == name].set_index("record") for name in ("clean", condition)}
    cards = []
    for outcome, records in by_outcome.items():
        for record in records.index[: CORRUPTED_CARDS[outcome]]:
            before, after = (condition_texts[name].loc[record] for name in ("clean", condition))
            cards.append(
                {
                    "record": record,
                    "target": _answer_text(before["target"]),
                    "outcome": outcome,
                    "clean": _answer_text(predictions["clean"].loc[record, "prediction"]),
                    "corrupted": _answer_text(predictions[condition].loc[record, "prediction"]),
                    "columns": [
                        ("described, clean", _unmarked_parts(before["described"])),
                        ("described, corrupted", _marked_parts(before["described"], after["described"])),
                        *(
                            (
                                ("aligned, clean", _unmarked_parts(before["aligned"])),
                                ("aligned, corrupted", _marked_parts(before["aligned"], after["aligned"])),
                            )
                            if _aligns(texts)
                            else ()
                        ),
                    ],
                }
            )
    return cards


def perturbed_cards(texts: pd.DataFrame) -> list[dict]:
    """Return cards of the first training records in round 0, with the changes of the perturbation marked."""
    train = texts[texts["split"] == "train"].sort_values("record")
    clean = train[train["round"].isna()].set_index("record")
    cards = []
    for row in train[train["round"] == 0].head(PERTURBED_CARDS).itertuples():
        before = clean.loc[row.record]
        aligned = " ".join(json.loads(before["aligned"]).values())
        pieces = [] if row.instruction is None else zip(row.instruction, row.fallback, strict=True)
        instructions = [f"{name} (fallback: the rules)" if is_fallback else name for name, is_fallback in pieces]
        cards.append(
            {
                "record": row.record,
                "target": _answer_text(row.target),
                "instruction": ", ".join(instructions),
                "columns": [
                    ("described", _unmarked_parts(before["described"])),
                    *([("aligned", _unmarked_parts(before["aligned"]))] if _aligns(texts) else []),
                    ("perturbed", [("", word_diff(aligned, row.read))]),
                ],
            }
        )
    return cards


def _unmarked_parts(parts: str) -> list[tuple[str, list[tuple[str, str]]]]:
    return [(name, [("equal", text)]) for name, text in json.loads(parts).items()]


def _marked_parts(before: str, after: str) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return the parts of both texts with their changes; a deleted part is one delete."""
    old, new = json.loads(before), json.loads(after)
    return [(name, word_diff(old.get(name, ""), new.get(name, ""))) for name in dict.fromkeys([*old, *new])]


def _answer_text(value: str | float) -> str:
    """Return a class as it is, and a number in four digits."""
    if isinstance(value, float):
        return "–" if math.isnan(value) else f"{value:.4g}"
    return str(value)
