"""The logged texts of a run."""

import json

import pandas as pd
import pytest

from project.config.schema import RobustnessConfig
from project.corruption.conditions import CLEAN, evaluation_conditions, noisy
from project.pipeline import text_log
from project.pipeline.perturbation.rules import apply_rules
from project.pipeline.pipeline import compose
from project.pipeline.text_log import TEXT_COLUMNS, logged_conditions, text_rows, text_table, training_rows


def fail_perturbations(request):
    """Fail every perturbation."""
    return "" if request.stage == "perturb" else "{}" if request.schema else request.messages[-1][1]


def test_the_middle_level_of_each_kind_is_logged_and_no_order():
    conditions = evaluation_conditions(RobustnessConfig(levels=[0.1, 0.3, 0.7], missing="single"))
    assert [str(condition) for condition in logged_conditions(conditions)] == [
        "clean",
        "noisy(image, 0.3)",
        "noisy(text, 0.3)",
        "noisy(table, 0.3)",
        "noisy(all, 0.3)",
        "missing(image)",
        "missing(text)",
        "missing(table)",
    ]


def test_a_row_has_the_texts_of_all_steps_after_reading_the_file(pipeline_of, records, tmp_path):
    pipeline = pipeline_of("alignment.style=false")
    condition = noisy(("table",), 1.0, 1)
    traces = [*pipeline.transform(records[:2]), *pipeline.transform(records[:2], condition)]
    path = tmp_path / "texts.parquet"
    text_table(text_rows(traces[:2], "test", "clean") + text_rows(traces[2:], "test", str(condition))).to_parquet(path)
    table = pd.read_parquet(path)
    assert list(table.columns) == TEXT_COLUMNS and len(table) == 4
    assert json.loads(table["table"][0]) == records[0].table
    assert json.loads(table["table"][2]) == dict.fromkeys(records[0].table)
    for row, trace in zip(table.itertuples(), traces, strict=True):
        assert json.loads(row.described) == dict(trace.described)
        assert json.loads(row.aligned) == dict(trace.aligned.parts)
        assert row.read == " ".join(compose(trace.parts)) and row.target == trace.record.target
    assert table["round"].isna().all() and table["instruction"].isna().all()


@pytest.mark.parametrize("place, units", [("aligned", 1), ("described", 3)])
def test_training_rows_are_logged_in_the_rounds_of_training(pipeline_of, records, scripted, place, units):
    pipeline = pipeline_of(
        "alignment.style=false", "perturbation=instructions", f"perturbation.stage={place}", "perturbation.rounds=3"
    )
    clean = pipeline.clean(records)
    rounds = [pipeline.perturbed(clean, round) for round in range(2)]
    requests = len(scripted.asked)
    table = text_table(training_rows(pipeline, records, epochs=2))
    assert len(scripted.asked) == requests, "logging needs no new request"
    assert set(table["round"].dropna()) == {0, 1} and table["round"].isna().sum() == len(records)
    first = table[table["round"] == 0].set_index("record")
    for trace in rounds[0]:
        assert first.loc[trace.record.id, "read"] == " ".join(compose(trace.parts))
    assert set(first["instruction"].map(len)) == set(first["fallback"].map(len)) == {units}
    assert set(first["instruction"].explode()) <= {"noise", "drop", "permute"}
    assert not first["fallback"].explode().any()


@pytest.mark.parametrize("place", ["aligned", "described"])
def test_fallbacks_to_rules_are_marked(pipeline_of, records, scripted, place):
    scripted.reply = fail_perturbations
    pipeline = pipeline_of("alignment.style=false", "perturbation=instructions", f"perturbation.stage={place}")
    table = text_table(training_rows(pipeline, records, epochs=1))
    assert table["fallback"][table["round"].notna()].explode().all()


def test_texts_perturbed_by_rules_have_no_instruction(pipeline_of, records):
    pipeline = pipeline_of("method=rules")
    table = text_table(training_rows(pipeline, records, epochs=5))
    row = table[table["round"] == 1].iloc[0]
    record = next(record for record in records if record.id == row.record)
    described = pipeline.clean([record])[0].described
    assert row.read == " ".join(compose(apply_rules(described, pipeline.config.perturbation.level, record.id, 1)))
    assert row.instruction is None and row.fallback is None


@pytest.mark.parametrize(
    "override, epochs",
    [
        ("perturbation=none", 5),
        ("perturbation.weight=0", 5),
        ("perturbation.rounds=2", 0),
    ],
)
def test_no_round_is_logged_without_training_on_it(pipeline_of, records, override, epochs):
    table = text_table(training_rows(pipeline_of("method=rules", override), records, epochs))
    assert table["round"].isna().all() and len(table) == (len(records) if epochs else 0)


def test_the_logged_training_rows_are_limited_and_reproducible(pipeline_of, records, monkeypatch):
    monkeypatch.setattr(text_log, "TRAIN_ROWS", 3)
    logged = [
        {row["record"] for row in training_rows(pipeline_of("method=rules"), order, 1)}
        for order in (records, records[::-1])
    ]
    assert logged[0] == logged[1] and len(logged[0]) == 3


def test_clean_is_logged():
    assert logged_conditions([CLEAN]) == [CLEAN]
