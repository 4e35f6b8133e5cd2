"""The zero-shot method runs through the verbs train, evaluate and prepare like every other method."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from project.cli import evaluate, prepare, train, validate
from project.config.compose import load_config
from project.config.run_identity import run_folder
from project.data.target import Target
from project.errors import UserError
from project.evaluation.comparison import compare
from project.evaluation.primary_endpoint import endpoint
from project.evaluation.run_loading import experiment_runs, load_runs
from project.llm import factory as engines
from project.methods.llm_zero_shot import NO_ANSWER, prediction_of
from tests.conftest import faithful

CLASSES = Target("class", "x", ("x", "y"))
NUMBER = Target("number", 3.0, low=1.0, high=9.0)


@pytest.fixture
def args(tiny_args):
    """Arguments of a run of method=llm, which has no encoder, without the style stage."""
    return [*(arg for arg in tiny_args if not arg.startswith("model.")), "method=llm", "alignment.style=false"]


@pytest.fixture
def trained(args, scripted, monkeypatch):
    """Return a function that runs the method with the scripted engine and returns the run folder."""
    monkeypatch.setattr(engines, "_engine", lambda config: scripted)

    def run(*settings):
        config = load_config([*args, *settings])
        train.run(config, {})
        return run_folder(config)

    return run


def test_a_missing_answer_counts_as_wrong_or_becomes_the_constant():
    assert prediction_of(["y", None], CLASSES).answers == ["y", NO_ANSWER] and NO_ANSWER not in CLASSES.classes
    prediction = prediction_of(["4.5", None, "1e9", "-2"], NUMBER)
    assert (prediction.answers, prediction.unparsed) == ([4.5, 3.0, 9.0, 1.0], [False, True, False, False])


@given(st.lists(st.none() | st.floats(-1e6, 1e6).map(lambda number: f"{number:.6g}")))
def test_numbers_stay_within_the_training_targets(texts):
    answers = prediction_of(texts, NUMBER).answers
    assert len(answers) == len(texts) and all(1 <= answer <= 9 for answer in answers)


def test_a_run_takes_its_answers_from_the_reasoning_stage(trained, scripted, table_file):
    truth = dict(zip(pd.read_csv(table_file)["title"], pd.read_csv(table_file)["kind"], strict=True))

    def right_half_the_time(request):
        if request.stage != "reasoning":
            return faithful(request)
        if "sour" in request.messages[-1][1]:
            return "I cannot tell."
        answer = next((kind for title, kind in truth.items() if title in request.messages[-1][1]), "plum")
        return json.dumps({"explanation": "it is so", "prediction": answer.upper()})

    scripted.reply = right_half_the_time
    folder = trained()
    info = json.loads((folder / "run.json").read_text())
    clean = pd.read_parquet(folder / "predictions.parquet").query("condition == 'clean'")
    is_unparsed = clean["prediction"] == NO_ANSWER
    assert 0 < is_unparsed.sum() < len(clean)
    assert info["unparsed"]["clean"] == pytest.approx(is_unparsed.mean())
    assert (clean["prediction"] == clean["target"])[~is_unparsed].mean() > 0.8
    assert info["val"]["last"].keys() == {"score", "clean", "drop_ratio"} and info["seconds"]["validate"] >= 0
    results = pd.read_parquet(folder / "results.parquet")
    accuracy = results.query("condition == 'clean' and metric == 'accuracy'")["value"].item()
    assert accuracy == pytest.approx((clean["prediction"] == clean["target"]).mean())
    # There is no trained model and no log of training texts.
    assert {path.name for path in folder.iterdir()} == {
        "config.yaml",
        "data.md",
        "run.json",
        "predictions.parquet",
        "results.parquet",
    }


def test_with_the_best_validation_score_llm_is_the_best_rival(trained, scripted):
    """Two copies of the run stand for ours and another rival with lower validation scores."""
    scripted.reply = faithful
    llm = trained()
    best_score = json.loads((llm / "run.json").read_text())["val"].get("best_score", 1.0)
    for name in ("ours", "plain"):
        copy = llm.parent.parent / name / llm.name
        shutil.copytree(llm, copy)
        info = json.loads((copy / "run.json").read_text()) | {"method": name, "name": name}
        (copy / "run.json").write_text(json.dumps(info | {"val": {"best_score": best_score - 0.1, "last": {}}}))
    comparison = compare(load_runs(experiment_runs(llm.parent.parent)), 20)
    assert endpoint(comparison).best.rival == llm.parent.name


@pytest.mark.parametrize(
    ("extra", "metric"), [(("data.task=number", "data.log=true"), "rmse_log"), (("data.task=ordinal",), "accuracy")]
)
def test_numbers_and_ordered_classes_can_be_scored_with_missing_answers(trained, scripted, extra, metric):
    scripted.reply = lambda request: "no idea" if "sour" in request.messages[-1][1] else faithful(request)
    folder = trained("data.target=price", "data.table=[city]", *extra)
    results = pd.read_parquet(folder / "results.parquet")
    assert np.isfinite(results[results["metric"] == metric]["value"]).all()
    kappas = results[results["metric"] == "kappa"]["value"]
    assert kappas.notna().all() and (len(kappas) > 0) == (metric == "accuracy")


def test_a_second_evaluation_reads_the_store_alone(trained, args, scripted):
    folder = trained()
    predictions = pd.read_parquet(folder / "predictions.parquet")
    scripted.asked.clear()
    evaluate.run(load_config(args), {})
    pd.testing.assert_frame_equal(predictions, pd.read_parquet(folder / "predictions.parquet"))
    assert not scripted.asked


def test_prepare_generates_all_texts_of_a_run_and_none_of_training_rows(trained, args, scripted, monkeypatch, capsys):
    monkeypatch.setattr(engines, "_engine", lambda config: scripted)
    config = load_config(args)
    prepare.run(config, {"dry_run": "true"})
    output = " ".join(capsys.readouterr().out.split())
    prepare.run(config, {})
    prepared = [request.key("") for request in scripted.asked]
    assert f"{len([request for request in scripted.asked if request.stage == 'reasoning'])} reasoning" in output
    scripted.asked.clear()
    trained("store.engine=false")
    assert prepared and not scripted.asked


def test_a_configuration_without_the_reasoning_stage_raises_an_error(args, scripted, monkeypatch):
    monkeypatch.setattr(engines, "_engine", lambda config: scripted)
    with pytest.raises(UserError, match=r"method=llm .*set alignment.reasoning=true"):
        train.run(load_config([*args, "alignment.reasoning=false"]), {})


def test_evaluating_an_untrained_run_names_the_training_command(args):
    with pytest.raises(UserError, match="python -m project train"):
        evaluate.run(load_config(args), {})


def test_validate_counts_the_calls(args, capsys, monkeypatch):
    assert validate.run(load_config(args), {"models": "false"}) == 0
    assert "at most 0 calls" not in capsys.readouterr().out
