"""The attack at test time: which draw is used, what a prompt may contain, and that planted weaknesses are found."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from project.cli import train
from project.config.compose import load_config
from project.config.prompts import instructions
from project.config.run_identity import run_folder
from project.data.target import Target
from project.evaluation.attack import attack
from project.evaluation.evaluate_run import attackable
from project.evaluation.run_loading import experiment_runs, load_runs
from project.evaluation.tracking import summary
from project.llm import factory as engines
from project.methods.base import Prediction
from project.pipeline.alignment import join_parts
from project.report.page import build_report, compare_all
from tests.conftest import CLASSES, data_of

TARGET = Target("class", CLASSES[0], CLASSES)
MARKER = "ZQX-marker"


class Counter:
    """A planted reader: the share of the first class falls with every "x" that a text holds, and so does its answer."""

    def __init__(self, enough=3):
        self.enough, self.seen = enough, []

    def read(self, traces):
        prediction = np.array([join_parts(trace.parts).split().count("x") for trace in traces])
        self.seen += [join_parts(trace.parts) for trace in traces]
        first = np.clip(0.9 - 0.2 * prediction, 0.05, 1) if self.enough else np.full(len(prediction), 0.9)
        answers = [CLASSES[0] if not self.enough or count < self.enough else CLASSES[1] for count in prediction]
        return Prediction(answers, np.stack([first, 1 - first, 0 * first], 1), list(traces))


def marked(counts):
    """A faithful rewriting that adds as many marks as `counts` says of the draw."""
    return lambda request: data_of(request) + " x" * counts[request.round]


@pytest.fixture
def attacked(pipeline_of, scripted, records):
    """Attacks the planted reader on descriptions; gives the prediction, what is told, and the clean traces."""

    def run(reply, reader=None, draws=4, rows=records, folder=None, **overrides):
        scripted.reply = reply
        pipeline, reader = pipeline_of("method=plain", folder=folder), reader or Counter()
        clean = reader.read(pipeline.transform(rows))
        return *attack(reader, clean, pipeline, TARGET, draws), clean.traces

    return run


def test_the_first_faithful_draw_that_changes_the_answer_is_used(attacked, scripted, records):
    # Three pieces a row: one mark in each changes the answer, as soon as there is one.
    prediction, statistics, clean = attacked(marked([0, 1, 2, 3]))
    assert prediction.answers == [CLASSES[1]] * len(records)
    assert all(join_parts(trace.parts).split().count("x") == 3 for trace in prediction.traces)
    assert {request.round for request in scripted.asked} == {0, 1}  # and no draw after it
    assert statistics["requests"] == 2 * sum(len(trace.parts) for trace in clean)
    assert statistics["reads"] == len(records) and statistics["unfaithful"] == pytest.approx(
        0.5
    )  # draw 0 changed nothing


def test_without_a_changed_answer_the_draw_with_the_lowest_probability_is_used(attacked, records):
    prediction, statistics, _ = attacked(marked([1, 3, 2, 0]), reader=Counter(enough=99), draws=4)
    assert all(join_parts(trace.parts).split().count("x") == 9 for trace in prediction.traces)
    assert prediction.answers == [CLASSES[0]] * len(records) and statistics["success_rate"] == 0


@pytest.mark.parametrize(
    "reply",
    [
        data_of,
        lambda request: data_of(request) + " Vehicle x",
        lambda request: "x x x",
        lambda request: data_of(request) + " x" * 90,
        lambda request: "",
        lambda request: data_of(request) + " x 77",
        lambda request: (data_of(request) + " x", "length"),
        lambda request: "I'm sorry, I cannot help with x x x.",
    ],
    ids=["unchanged", "class named", "facts lost", "too long", "empty", "number added", "cut off", "refusal"],
)
def test_unfaithful_draws_are_not_used(attacked, records, reply):
    reader = Counter()
    prediction, statistics, clean = attacked(reply, reader)
    assert [trace.parts for trace in prediction.traces] == [trace.parts for trace in clean]
    assert not any("x" in text.split() for text in reader.seen)
    assert (statistics["success_rate"], statistics["reads"], statistics["unfaithful"]) == (0, 0, 1)


def test_a_part_that_fails_the_filter_is_kept_and_the_others_are_used(attacked):
    prediction, _, clean = attacked(
        lambda request: data_of(request) + " x" * (3 * ("The material" in data_of(request)))
    )
    for before, after in zip(clean, prediction.traces, strict=True):
        assert dict(after.parts) == dict(before.parts) | {"table": dict(before.parts)["table"] + " x x x"}


def test_the_success_rate_is_over_rows_with_a_right_clean_answer(attacked, records):
    prediction, statistics, _ = attacked(marked([1, 1, 1, 1]))
    fruits = [record for record in records if record.target == "Fruit"]
    assert statistics["clean_right"] == len(fruits) and statistics["success_rate"] == 1
    assert attacked(marked([1] * 4), Counter(enough=0), folder=None)[1]["success_rate"] == 0  # deaf to all marks


def test_without_a_right_answer_there_is_no_success_rate(attacked, records):
    assert attacked(marked([1]), draws=1, rows=[replace(records[0], target="Tool")])[1]["success_rate"] is None


def test_a_row_without_text_is_not_changed(attacked, records, scripted):
    blank = replace(records[0], image=None, text=None, table=None)
    prediction, statistics, _ = attacked(marked([1]), draws=1, rows=[blank])
    assert prediction.answers == [CLASSES[0]] and not scripted.asked and statistics["unfaithful"] is None


def test_the_prompt_contains_the_models_answer_and_never_the_label(attacked, scripted, records, tmp_path):
    seen = []
    for number, target in enumerate((None, MARKER, "Vehicle")):
        scripted.asked.clear()
        prediction, _, _ = attacked(
            marked([0, 1, 0, 1]),
            Counter(enough=99),
            folder=tmp_path / str(number),
            rows=[replace(record, target=target) for record in records],
        )
        assert not any(MARKER in content for request in scripted.asked for _, content in request.messages)
        seen.append(
            (sorted(request.key("") for request in scripted.asked), [trace.parts for trace in prediction.traces])
        )
    assert seen[0] == seen[1] == seen[2]
    assert all(f"The reader's answer is: {CLASSES[0]}. " in request.messages[1][1] for request in scripted.asked)


def test_instructions_differ_from_training_and_between_draws(attacked, scripted, records):
    attacked(marked([0] * 4), Counter(enough=99))
    trained = {line for name in ("noise", "drop", "permute", "paraphrase") for line in instructions(name)}
    statistics = {}
    for request in scripted.asked:
        line = request.messages[1][1].rpartition(f"{CLASSES[0]}. ")[2]
        statistics.setdefault(data_of(request), []).append(line)
    assert {line for lines in statistics.values() for line in lines} <= set(instructions("attack")) - trained
    assert all(len(set(statistics[record.text])) == len(statistics[record.text]) == 4 for record in records)


@pytest.fixture
def run(tiny_args, scripted, monkeypatch):
    monkeypatch.setattr(engines, "_engine", lambda config: scripted)

    def trained(*more):
        config = load_config(
            [
                *tiny_args,
                "method=plain",
                "trainer.epochs=1",
                "robustness.attack=true",
                "robustness.attack_draws=2",
                *more,
            ]
        )
        train.run(config, {})
        return run_folder(config)

    return trained


def test_the_attack_is_a_condition_in_all_tables(run, scripted, tmp_path):
    scripted.reply = lambda request: data_of(request) + " blue red green"
    folder = run()
    info, results = json.loads((folder / "run.json").read_text()), pd.read_parquet(folder / "results.parquet")
    assert {"accuracy", "drop_ratio"} <= set(results[results["condition"] == "attack"]["metric"])
    # Rows with equal pieces share a call.
    assert info["attack"]["draws"] == 2 and info["attack"]["requests"] >= info["llm"]["calls"] > 0
    predictions = pd.read_parquet(folder / "predictions.parquet").set_index("record")
    before, after = (predictions[predictions["kind"] == kind] for kind in ("clean", "attack"))
    right = before["prediction"] == before["target"]
    lost = right & (after["prediction"] != after["target"]).reindex(right.index)
    assert info["attack"]["success_rate"] == pytest.approx(lost.sum() / right.sum())
    assert "test/drop_ratio/attack" in summary(results, "accuracy")
    texts = pd.read_parquet(folder / "texts.parquet").query("split == 'test'").set_index("record")
    read = {name: texts["read"][texts["condition"] == name] for name in ("clean", "attack")}
    assert len(read["attack"]) == len(read["clean"]) and (read["attack"].str.count(" blue red green") > 0).any()
    comparisons = compare_all(load_runs(experiment_runs(folder.parent.parent)), 50)
    page = build_report(comparisons, tmp_path / "report", "attacked", 50).read_text()
    assert "adversarial rewriting" in page and "2 rewritings" in page


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (("data.task=number", "data.target=price", "data.table=[city]"), "an attack needs classes"),
    ],
)
def test_a_run_without_anything_to_attack_warns_and_continues(run, scripted, caplog, extra, message):
    folder = run(*extra)
    assert message in caplog.text and not scripted.asked
    assert "attack" not in set(pd.read_parquet(folder / "results.parquet")["condition"])


def test_a_method_that_reads_no_texts_is_not_attacked(tiny_args, caplog):
    config = load_config([*tiny_args, "method=plain"])
    rows = type("Rows", (), {"target": TARGET})
    assert attackable(config, rows, Counter()) and not attackable(config, rows, lambda records, condition: None)
    assert "reads no texts" in caplog.text
