"""The report's part on texts: collapse, what came back, how good perturbations are, and records side by side."""

import json
import math
from collections.abc import Callable

import pandas as pd

from ..evaluation.comparison import Comparison, Estimate
from ..evaluation.results import conditions_of
from ..evaluation.run_loading import Run
from ..metrics.scores import SCORES
from ..pipeline.text_log import FILE
from .section import Section
from .text_diff import word_diff

CARDS = {"lost": 2, "gained": 1, "kept": 1}
"""How many test records are shown whose answer a corruption made worse, made better, and left as it was."""
PERTURBED_CARDS = 3
REMOVED = {"table": "cells of the table", "text": "words of the text", "image": "words about the image"}
"""What a corruption removes, by modality."""


def texts(comparison: Comparison) -> Section | None:
    """What becomes of the texts, with a CSV of each measured table; None where no run has kept its texts.

    Texts are the same for all seeds, so each method is told by the first of its runs that has kept them. The tables are
    there for the runs that `analyse` has measured.
    """
    kept = {method: [run for run in runs if (run.folder / FILE).is_file()] for method, runs in comparison.runs.items()}
    first = {method: runs[0] for method, runs in kept.items() if runs}
    if not first:
        return None
    read = {name: pd.read_parquet(run.folder / FILE) for name, run in first.items()}
    told = max(read, key=lambda name: _arrows(read[name]))
    measured = {
        table: {
            name: pd.read_parquet(run.folder / f"{table}.parquet")
            for name, run in first.items()
            if (run.folder / f"{table}.parquet").is_file()
        }
        for table in ("transformation", "collapse", "recovery", "diversity")
    }
    condition = shown_condition(first[told], read[told])
    values = {
        "condition": condition,
        "transformation": _merged(measured["transformation"], lambda name, table: transformation_rows(table)),
        "collapse": _merged(measured["collapse"], lambda name, table: collapse_rows(table, read[name], condition)),
        "recovery": _merged(measured["recovery"], lambda name, table: recovery_rows(table)),
        "diversity": _merged(measured["diversity"], lambda name, table: diversity_rows(table)),
        "told": told,
        "corrupted_cards": corrupted_cards(first[told], read[told], condition) if condition else [],
        "perturbed_cards": perturbed_cards(read[told]),
    }
    tables = {table: pd.concat(own, names=["method"]).reset_index("method") for table, own in measured.items() if own}
    return Section("texts.html.j2", values, tables)


def _aligns(texts: pd.DataFrame) -> bool:
    return bool((texts["described"] != texts["aligned"]).any())


def _arrows(texts: pd.DataFrame) -> tuple[bool, ...]:
    """For choosing the run that shows most: whether a model rewrote texts, whether anything did, whether it aligned."""
    return bool(texts["instruction"].notna().any()), bool(texts["round"].notna().any()), _aligns(texts)


def shown_condition(run: Run, texts: pd.DataFrame) -> str | None:
    """Noise on all modalities where its texts are kept, else the last corrupted condition, else None."""
    conditions = conditions_of(run.predictions)
    kept = conditions[conditions.index.isin(set(texts["condition"][texts["split"] == "test"]) - {"clean"})]
    noisy = kept.index[(kept["kind"] == "noisy").to_numpy()]
    return next(iter([*reversed(noisy), *reversed(kept.index)]), None)


def _merged(tables: dict[str, pd.DataFrame], rows: Callable[[str, pd.DataFrame], list[dict]]) -> list[dict]:
    """The rows of each table, told once for all runs that have the same."""
    found: dict[str, dict] = {}
    for name, table in tables.items():
        made = rows(name, table)
        found.setdefault(repr(made), {"names": [], "rows": made})["names"].append(name)
    return [entry for entry in found.values() if entry["rows"]]


def transformation_rows(table: pd.DataFrame) -> list[dict]:
    """A row for each modality."""
    return [
        {"modality": modality, "n": int(part["n"].iloc[0]), **_estimates(part)}
        for modality, part in table.groupby("modality", sort=False)
    ]


def collapse_rows(table: pd.DataFrame, texts: pd.DataFrame, condition: str | None) -> list[dict]:
    """A row for each arrow that changes anything: clean test rows, those of `condition`, and training rows."""
    rows = []
    for split, name, label in (
        ("test", "clean", "test, clean"),
        ("test", condition, f"test, {condition}"),
        ("train", "clean", "training"),
    ):
        part = table[(table["split"] == split) & (table["condition"] == name)]
        for arrow in ("described", "aligned", "perturbed"):
            some = part[(part["arrow"] == arrow) & (part["round"].fillna(0) == 0)]
            if len(some) and (arrow != "aligned" or _aligns(texts)):
                rows.append({"rows": label, "arrow": arrow, "n": int(some["n"].max()), **_estimates(some)})
    return rows


def recovery_rows(table: pd.DataFrame) -> list[dict]:
    """A row for each condition and corrupted modality: how much was removed, and the share of each fate."""
    rows = []
    for (condition, modality), part in table.groupby(["condition", "modality"], sort=False):
        shares = part[part["measure"] != "untraceable"]
        if len(shares):
            lacking = part["count"][part["measure"] == "untraceable"].sum()
            rows.append(
                {
                    "condition": condition,
                    "removed": REMOVED.get(modality, f"words about the {modality}"),
                    "n": int(shares["n"].iloc[0]),
                    "untraceable": int(lacking),
                    **_estimates(shares),
                }
            )
    return rows


def diversity_rows(table: pd.DataFrame) -> list[dict]:
    """A row for all perturbed texts and for each set of instructions."""
    return [
        {"instruction": instruction, "n": int(part["n"].iloc[0]), **_estimates(part)}
        for instruction, part in table.groupby("instruction", sort=False)
    ]


def _estimates(part: pd.DataFrame) -> dict[str, Estimate]:
    return {row.measure: Estimate(row.value, row.low, row.high) for row in part.itertuples()}


def corrupted_cards(run: Run, texts: pd.DataFrame, condition: str) -> list[dict]:
    """A few test records, clean and under the condition, with what the corruption changed at each arrow.

    Those come first whose answer it made worst; of equal ones, the first by id.
    """
    score = SCORES[run.info.metric]
    seen = {
        name: run.predictions[run.predictions["condition"] == name].set_index("record").sort_index()
        for name in ("clean", condition)
    }
    values = {
        name: pd.Series(score.of_rows(rows["target"], rows["prediction"]), rows.index) for name, rows in seen.items()
    }
    change = (values[condition] - values["clean"]) * (1 if score.higher_is_better else -1)
    chosen = {
        "lost": change[change < 0].sort_values(kind="stable"),
        "gained": change[change > 0].sort_values(ascending=False, kind="stable"),
        "kept": change[change == 0],
    }
    test = texts[texts["split"] == "test"]
    said = {name: test[test["condition"] == name].set_index("record") for name in ("clean", condition)}
    cards = []
    for outcome, records in chosen.items():
        for record in records.index[: CARDS[outcome]]:
            before, after = said["clean"].loc[record], said[condition].loc[record]
            cards.append(
                {
                    "record": record,
                    "target": _text(before["target"]),
                    "outcome": outcome,
                    "clean": _text(seen["clean"].loc[record, "prediction"]),
                    "corrupted": _text(seen[condition].loc[record, "prediction"]),
                    "columns": [
                        ("described, clean", _whole(before["described"])),
                        ("described, corrupted", _marked(before["described"], after["described"])),
                        *(
                            (
                                ("aligned, clean", _whole(before["aligned"])),
                                ("aligned, corrupted", _marked(before["aligned"], after["aligned"])),
                            )
                            if _aligns(texts)
                            else ()
                        ),
                    ],
                }
            )
    return cards


def perturbed_cards(texts: pd.DataFrame) -> list[dict]:
    """The first training records in round 0 of the perturbation, with what it changed marked; none without one."""
    train = texts[texts["split"] == "train"].sort_values("record")
    clean = train[train["round"].isna()].set_index("record")
    cards = []
    for row in train[train["round"] == 0].head(PERTURBED_CARDS).itertuples():
        before = clean.loc[row.record]
        passage = " ".join(json.loads(before["aligned"]).values())
        how = (
            ""
            if row.instruction is None
            else ", ".join(
                f"{name} (fallback: the rules)" if fell else name
                for name, fell in zip(row.instruction, row.fallback, strict=True)
            )
        )
        cards.append(
            {
                "record": row.record,
                "target": _text(row.target),
                "instruction": how,
                "columns": [
                    ("described", _whole(before["described"])),
                    *([("aligned", _whole(before["aligned"]))] if _aligns(texts) else []),
                    ("perturbed", [("", word_diff(passage, row.read))]),
                ],
            }
        )
    return cards


def _whole(parts: str) -> list[tuple[str, list[tuple[str, str]]]]:
    return [(name, [("kept", text)]) for name, text in json.loads(parts).items()]


def _marked(before: str, after: str) -> list[tuple[str, list[tuple[str, str]]]]:
    """Each piece of either text with its changes; a piece that is gone is all struck out."""
    old, new = json.loads(before), json.loads(after)
    return [(name, word_diff(old.get(name, ""), new.get(name, ""))) for name in dict.fromkeys([*old, *new])]


def _text(value: str | float) -> str:
    """A class, or a number in four digits."""
    if isinstance(value, float):
        return "–" if math.isnan(value) else f"{value:.4g}"
    return str(value)
