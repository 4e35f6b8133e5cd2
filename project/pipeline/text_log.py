"""texts.parquet: what became of a record at every arrow, so that texts can be measured and read without the pipeline.

One row a record, condition and round. Kept are the texts of the test rows under the conditions of `kept_conditions`,
and those of the first TRAIN_ROWS training rows, clean and in each round that was trained on.
"""

import json
from collections.abc import Sequence

import pandas as pd

from ..config.schema import PerturbationConfig
from ..corruption.conditions import Condition, middle_level
from ..data.record import Record, seeded
from .alignment import Parts
from .perturbation import perturb
from .perturbation.instructions import INSTRUCTION_KINDS, drawn, fallback, instruction_sets, units
from .pipeline import Pipeline, Trace, compose

FILE = "texts.parquet"
COLUMNS = [
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
"""`described`, `aligned` and `table` are JSON objects: modality, part or column -> text or cell, after the corruption.

`read` is the text that the model reads. `round` is null for what is not perturbed. Where a language model rewrites,
`instruction` and `fallback` are lists with an entry for each piece that it was asked for.
"""
TRAIN_ROWS = 1000
"""So many training rows are kept at most, drawn by a hash of their id."""


def kept_conditions(conditions: Sequence[Condition]) -> list[Condition]:
    """The conditions whose texts are kept: of each kind its level nearest to 0.5; no orders, they take nothing away."""
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
    """The rows of some records. `rewritten` are the instruction and the fallback of each piece of each record."""
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
            "fallback": fell_back,
        }
        for trace, (instruction, fell_back) in zip(traces, rewritten or [(None, None)] * len(traces), strict=True)
    ]


def training_rows(pipeline: Pipeline, train: Sequence[Record], epochs: int) -> list[dict]:
    """The rows of training records: clean, and in the rounds that `epochs` passes trained on; none without a pass."""
    config = pipeline.config.perturbation
    if not epochs:
        return []
    chosen = sorted(train, key=lambda record: (seeded("texts", record.id).random(), record.id))[:TRAIN_ROWS]
    clean = pipeline.clean(chosen)
    found = text_rows(clean, "train", "clean")
    rounds = min(config.rounds, epochs) if config.weight and config.kind != "none" else 0
    for round in range(rounds):
        traces = pipeline.perturbed(clean, round)
        rewritten = _rewritten(pipeline, traces, round) if config.kind in INSTRUCTION_KINDS else None
        found += text_rows(traces, "train", "clean", round, rewritten)
    return found


def text_table(rows: Sequence[dict]) -> pd.DataFrame:
    """The rows as a table in the columns `COLUMNS`."""
    return pd.DataFrame(rows, columns=COLUMNS).astype({"round": "Int64"})


def _rewritten(pipeline: Pipeline, traces: Sequence[Trace], round: int) -> list[tuple[list[str], list[bool]]]:
    """Of each record, the set of instructions that each piece got, and whether the rules stood in for the model."""
    config, ids = pipeline.config.perturbation, [trace.record.id for trace in traces]
    before, after = [trace.aligned.parts for trace in traces], [trace.perturbed for trace in traces]
    if config.stage == "described":  # the trace holds what alignment made of the rewritten descriptions
        before = [trace.described for trace in traces]
        after = perturb(ids, before, round, config, pipeline.llm, pipeline.task.classes)
    return [_pieces(*row, round, config) for row in zip(ids, before, after, strict=True)]


def _pieces(
    id: str, before: Parts, after: Parts, round: int, config: PerturbationConfig
) -> tuple[list[str], list[bool]]:
    pairs = list(zip(units(before, config), after, strict=True))
    sets = instruction_sets(config)
    instruction = [drawn(id, name, round, sets)[0] for (name, _), _ in pairs]
    return instruction, [new == fallback(id, name, old, round, config) for (name, old), (_, new) in pairs]


def _json(value: dict | None) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False)
