"""texts.parquet: the texts of records after each step, to read and measure them without the pipeline.

It has one row per record, condition and round: test rows under the conditions of `logged_conditions`, and TRAIN_ROWS
training rows, clean and in each round of the training.
"""

import json
from collections.abc import Sequence

import pandas as pd

from ..config.schema import PerturbationConfig
from ..corruption.conditions import Condition, middle_level
from ..data.record import Record, seeded
from .alignment import Parts
from .perturbation import perturb
from .perturbation.instructions import (
    INSTRUCTION_KINDS,
    draw_instruction,
    instruction_sets,
    rewritten_units,
    rules_fallback,
)
from .pipeline import Pipeline, Trace, compose

TEXTS_FILE = "texts.parquet"
TEXT_COLUMNS = [
    "split",
    "condition",
    "round",
    "record",
    "group",
    "target",
    "described",
    "table",
    "aligned",
    "read",
    "instruction",
    "fallback",
]
"""`described`, `aligned` and `table` are JSON objects: modality, part or column -> text or cell, after corruption.

`read` is the text that the model reads. `round` is null without perturbation. If a language model rewrites the text,
`instruction` and `fallback` are lists with one entry for each request.
"""
TRAIN_ROWS = 1000
"""Maximum number of logged training rows, selected by a hash of their id."""


def logged_conditions(conditions: Sequence[Condition]) -> list[Condition]:
    """Return the conditions to log: for each kind the level nearest to 0.5, without orders, which remove nothing."""
    middles = {
        kind: middle_level(condition.level for condition in conditions if condition.kind == kind)
        for kind in {condition.kind for condition in conditions}
    }
    return [
        condition
        for condition in conditions
        if condition.kind != "order" and condition.level == middles[condition.kind]
    ]


def text_rows(
    traces: Sequence[Trace],
    split: str,
    condition: str,
    round: int | None = None,
    rewritten: Sequence[tuple[list[str], list[bool]]] | None = None,
) -> list[dict]:
    """Return the rows of some records. `rewritten` has for each record the instructions and fallbacks of its units."""
    return [
        {
            "split": split,
            "condition": condition,
            "round": round,
            "record": trace.record.id,
            "group": trace.record.group,
            "target": trace.record.target,
            "described": _json(dict(trace.described)),
            "table": _json(trace.corrupted.table),
            "aligned": _json(dict(trace.aligned.parts)),
            "read": " ".join(compose(trace.parts)),
            "instruction": instruction,
            "fallback": used_fallback,
        }
        for trace, (instruction, used_fallback) in zip(traces, rewritten or [(None, None)] * len(traces), strict=True)
    ]


def training_rows(pipeline: Pipeline, train: Sequence[Record], epochs: int) -> list[dict]:
    """Return the rows of training records: clean, and in each round of `epochs` epochs; empty for 0 epochs."""
    config = pipeline.config.perturbation
    if not epochs:
        return []
    chosen = sorted(train, key=lambda record: (seeded("texts", record.id).random(), record.id))[:TRAIN_ROWS]
    clean = pipeline.clean(chosen)
    rows = text_rows(clean, "train", "clean")
    rounds = min(config.rounds, epochs) if config.weight and config.kind != "none" else 0
    for round in range(rounds):
        traces = pipeline.perturbed(clean, round)
        rewritten = _rewritten(pipeline, traces, round) if config.kind in INSTRUCTION_KINDS else None
        rows += text_rows(traces, "train", "clean", round, rewritten)
    return rows


def text_table(rows: Sequence[dict]) -> pd.DataFrame:
    """Return the rows as a table with TEXT_COLUMNS."""
    return pd.DataFrame(rows, columns=TEXT_COLUMNS).astype({"round": "Int64"})


def _rewritten(pipeline: Pipeline, traces: Sequence[Trace], round: int) -> list[tuple[list[str], list[bool]]]:
    """Return for each record the instruction set of each unit, and whether the rules replaced the model's text."""
    config, ids = pipeline.config.perturbation, [trace.record.id for trace in traces]
    before, after = [trace.aligned.parts for trace in traces], [trace.perturbed for trace in traces]
    if config.stage == "described":  # the trace has the aligned text of the rewritten descriptions
        before = [trace.described for trace in traces]
        after = perturb(ids, before, round, config, pipeline.llm, pipeline.task.classes)
    return [_units_of(*row, round, config) for row in zip(ids, before, after, strict=True)]


def _units_of(
    id: str, before: Parts, after: Parts, round: int, config: PerturbationConfig
) -> tuple[list[str], list[bool]]:
    pairs = list(zip(rewritten_units(before, config), after, strict=True))
    sets = instruction_sets(config)
    instruction = [draw_instruction(id, name, round, sets)[0] for (name, _), _ in pairs]
    return instruction, [new == rules_fallback(id, name, old, round, config) for (name, old), (_, new) in pairs]


def _json(value: dict | None) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False)
