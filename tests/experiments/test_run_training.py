"""A run from start to end: its files, resuming, and reproducibility."""

import json
import os
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
import torch
import yaml

from project.cli import evaluate, train
from project.cli.main import main
from project.config.compose import load_config, run_config
from project.config.run_identity import run_folder
from project.errors import UserError
from project.evaluation import evaluate_run
from project.evaluation.run_loading import experiment_runs
from project.llm import factory as engines
from project.training.datamodule import TextDataModule
from project.training.module import RobustModule
from tests.conftest import data_of, faithful


def trained(args):
    config = load_config(args)
    train.run(config, {})
    return run_folder(config)


@pytest.fixture
def finished(tiny_args):
    return trained([*tiny_args, "method=rules"])


def test_a_run_writes_exactly_these_files(finished):
    left = {path.relative_to(finished).as_posix() for path in finished.rglob("*") if path.is_file()}
    assert left == {
        "config.yaml",
        "data.md",
        "run.json",
        "predictions.parquet",
        "results.parquet",
        "texts.parquet",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "checkpoints/previous.ckpt",
        "adapter/adapter_config.json",
        "adapter/adapter_model.safetensors",
        "adapter/README.md",
        "adapter/tokenizer.json",
        "adapter/tokenizer_config.json",
    }


def test_without_evaluation_a_run_ends_with_its_validation_scores(tiny_args, finished, tmp_path, monkeypatch):
    args = [*tiny_args, "method=rules", f"output={tmp_path / 'trial'}"]
    with monkeypatch.context() as patched:
        patched.setattr(evaluate_run, "evaluate_run", None)
        train.run(load_config(args), {"evaluate": "false"})
        folder = run_folder(load_config(args))
        left = {path.name for path in folder.iterdir()}
        assert left == {"config.yaml", "data.md", "run.json", "checkpoints", "adapter"}
        info = json.loads((folder / "run.json").read_text())
        assert 0 <= info["val"]["best_score"] <= 1 and (info["metric"], info["seed"]) == ("accuracy", 0)
        train.run(load_config(args), {"evaluate": "false"})
    trained(args)
    pd.testing.assert_frame_equal(
        pd.read_parquet(folder / "predictions.parquet"), pd.read_parquet(finished / "predictions.parquet")
    )


def test_run_json_counts_two_views_per_row_and_epoch(finished):
    info = json.loads((finished / "run.json").read_text())
    assert info["forward_samples"] == 2 * info["rows"]["train"] * info["epochs"]
    assert info["perturbation"] == "rules" and info["llm"]["calls"] == 0


@pytest.mark.parametrize(
    ("method", "scored"), [(("method=freelb",), 0), (("method=rules", "perturbation.num_candidates=2"), 2)]
)
def test_variants_learn_from_as_many_samples_and_tell_the_cost_of_a_choice_apart(tiny_args, method, scored):
    info = json.loads((trained([*tiny_args, *method]) / "run.json").read_text())
    each = info["rows"]["train"] * info["epochs"]
    assert info["forward_samples"] == 2 * each
    assert info.get("scoring_samples", 0) == scored * each
    assert ("scoring" in info["seconds"]) == (scored > 0)


def test_predictions_have_one_row_per_record_and_condition(finished):
    predictions = pd.read_parquet(finished / "predictions.parquet")
    counts = predictions.groupby("condition")["record"].nunique()
    assert not predictions.duplicated(["record", "condition"]).any()
    assert counts.nunique() == 1 and "clean" in counts and "missing(table)" in counts


def test_the_checkpoint_holds_no_base_weights_and_loads_without_code(finished):
    checkpoint = torch.load(finished / "checkpoints/last.ckpt", weights_only=True)
    assert all("lora_" in name or "classifier" in name for name in checkpoint["state_dict"])


def test_a_complete_run_is_not_changed(finished, tiny_args, capsys):
    before = (finished / "results.parquet").stat().st_mtime_ns
    trained([*tiny_args, "method=rules"])
    assert (finished / "results.parquet").stat().st_mtime_ns == before
    assert "is already complete" in capsys.readouterr().out.replace("\n", " ")


def test_each_epoch_reads_the_texts_of_its_own_number(tiny_args, monkeypatch):
    epochs = []
    texts = TextDataModule.train_texts
    monkeypatch.setattr(TextDataModule, "train_texts", lambda self, epoch: epochs.append(epoch) or texts(self, epoch))
    trained([*tiny_args, "method=rules"])
    assert epochs == [0, 1, 2]


def test_two_runs_with_one_seed_give_equal_results(finished, tiny_args, tmp_path):
    again = trained([*tiny_args, "method=rules", f"output={tmp_path / 'again'}"])
    pd.testing.assert_frame_equal(
        pd.read_parquet(finished / "results.parquet"), pd.read_parquet(again / "results.parquet")
    )


def test_another_configuration_in_the_same_folder_shows_the_difference(finished, tiny_args):
    with pytest.raises(UserError, match=r"trainer.lr: 0.001 -> 0.002"):
        trained([*tiny_args, "method=rules", "trainer.lr=0.002", f"name={finished.parent.name}"])


def test_a_trained_run_is_evaluated_with_other_conditions_without_training(finished, tiny_args, monkeypatch):
    before, told = pd.read_parquet(finished / "predictions.parquet"), json.loads((finished / "run.json").read_text())
    monkeypatch.delattr(RobustModule, "training_step")
    assert (
        trained(
            [
                *tiny_args,
                "method=rules",
                "robustness.levels=[0.5,0.9]",
                "robustness.natural=[typing]",
                f"name={finished.parent.name}",
            ]
        )
        == finished
    )
    after, info = pd.read_parquet(finished / "predictions.parquet"), json.loads((finished / "run.json").read_text())
    added = set(after["condition"]) - set(before["condition"])
    assert {"noisy(all, 0.9)", "noisy(text, 0.9)"} < added and any("typing" in condition for condition in added)
    same = after[after["condition"].isin(before["condition"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(before, same)
    assert run_config(finished).robustness.levels == [0.5, 0.9]
    for key in ("steps", "forward_samples", "val", "llm_train"):
        assert info[key] == told[key]
    monkeypatch.setattr(evaluate_run, "evaluate_run", None)
    assert (
        main(
            [
                "train",
                *tiny_args,
                "method=rules",
                "robustness.levels=[0.5,0.9]",
                "robustness.natural=[typing]",
                f"name={finished.parent.name}",
            ]
        )
        == 0
    )


def test_an_interrupted_evaluation_keeps_the_earlier_one(finished, tiny_args, monkeypatch):
    def fails(*args, **options):
        raise UserError("no")

    files_before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    monkeypatch.setattr(evaluate_run, "results_table", fails)
    with pytest.raises(UserError):
        trained([*tiny_args, "method=rules", "robustness.levels=[0.9]", f"name={finished.parent.name}"])
    assert files_before == {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}


def test_a_run_folder_is_evaluated_with_other_conditions(finished):
    assert main(["evaluate", f"run={finished}", "robustness.missing=none"]) == 0
    assert not pd.read_parquet(finished / "predictions.parquet")["condition"].str.startswith("missing").any()
    assert run_config(finished).robustness.missing == "none"


def test_a_run_of_another_configuration_is_not_evaluated(finished, tiny_args):
    with pytest.raises(UserError, match="trainer.lr: 0.001 -> 0.002"):
        evaluate.run(load_config([*tiny_args, "method=rules", "trainer.lr=0.002", f"name={finished.parent.name}"]), {})


def test_a_key_that_is_newer_than_the_run_has_its_default(finished, tiny_args, capsys):
    path = finished / "config.yaml"
    told = yaml.safe_load(path.read_text())
    del told["experts"]["least_probability"]
    path.write_text(yaml.safe_dump(told))
    assert trained([*tiny_args, "method=rules"]) == finished
    assert "is already complete" in capsys.readouterr().out.replace("\n", " ")


@pytest.mark.parametrize(
    ("extra", "task", "metric", "further"),
    [
        (("data.task=number",), "number", "rmse", {"r2"}),
        (("data.task=number", "data.log=true"), "number", "rmse_log", {"r2", "rmse"}),
        (("data.task=ordinal",), "ordinal", "accuracy", {"kappa", "macro_f1", "ece"}),
        (("data.task=ordinal", "model.head=ordinal"), "ordinal", "accuracy", {"kappa", "macro_f1", "ece"}),
    ],
)
def test_numbers_and_ordered_classes_are_trained_and_measured(tiny_args, extra, task, metric, further):
    folder = trained([*tiny_args, "method=rules", "data.target=price", "data.table=[city]", *extra])
    info, results = json.loads((folder / "run.json").read_text()), pd.read_parquet(folder / "results.parquet")
    assert (info["task"], info["metric"]) == (task, metric)
    assert {metric, "drop_ratio", *further} <= set(results["metric"])
    predictions = pd.read_parquet(folder / "predictions.parquet")
    assert predictions["probabilities"].isna().all() == (task == "number")
    assert set(predictions["target"].astype(float)) <= set(range(1, 10))


def test_missing_modalities_have_no_conditions(tiny_args):
    folder = trained([*(arg for arg in tiny_args if not arg.startswith("data.image")), "method=plain"])
    assert json.loads((folder / "run.json").read_text())["modalities"] == ["text", "table"]
    assert set(pd.read_parquet(folder / "predictions.parquet")["condition"]) == {
        "clean",
        "noisy(text, 0.5)",
        "noisy(table, 0.5)",
        "noisy(all, 0.5)",
        "missing(text)",
        "missing(table)",
        "order(table, text)",
    }


def test_realistic_corruptions_and_present_modalities_are_in_the_results(tiny_args):
    folder = trained(
        [
            *tiny_args,
            "method=plain",
            "trainer.epochs=1",
            "robustness.natural=[stale,jpeg,typing]",
            "robustness.natural_levels=[0.4,0.8]",
        ]
    )
    predictions, results = (pd.read_parquet(folder / f"{name}.parquet") for name in ("predictions", "results"))
    assert set(predictions["present"]) == {"image,text,table"}
    assert set(predictions[predictions["kind"] == "natural"]["corruption"]) == {"stale", "jpeg", "typing"}
    assert (predictions[predictions["kind"] != "natural"]["corruption"] == "").all()
    curves = results[(results["condition"] == "natural") & results["level"].isna()]
    assert set(zip(curves["corruption"], curves["modality"], strict=True)) == {
        ("stale", "table"),
        ("jpeg", "image"),
        ("typing", "text"),
    }


def test_predictions_have_the_language_models_own_prediction(tiny_args, scripted, monkeypatch):
    monkeypatch.setattr(engines, "_engine", lambda config: scripted)

    def reply(request):
        return data_of(request) + " blue" if request.stage == "attack" else faithful(request)

    scripted.reply = reply
    folder = trained(
        [*tiny_args, "method=tamml", "alignment.style=false", "trainer.epochs=1", "robustness.attack=true"]
    )
    predictions, results = (pd.read_parquet(folder / f"{name}.parquet") for name in ("predictions", "results"))
    attacked = predictions["kind"] == "attack"
    assert predictions["llm_prediction"].isin(json.loads((folder / "run.json").read_text())["classes"])[~attacked].all()
    assert attacked.any() and predictions["llm_prediction"][attacked].isna().all()
    clean = predictions[predictions["kind"] == "clean"]
    right = clean["llm_prediction"] == clean["target"]
    told = results[results["condition"] == "clean"].set_index("metric")
    if min(right.sum(), (~right).sum()) >= 5:
        hit = clean["prediction"] == clean["target"]
        assert told["value"]["accuracy_llm_right"] == pytest.approx(hit[right].mean())
        assert told["n"]["accuracy_llm_wrong"] == (~right).sum()
    else:
        assert "accuracy_llm_right" not in told.index


def test_evaluating_again_gives_the_same_predictions(finished, tiny_args):
    before = pd.read_parquet(finished / "predictions.parquet")
    evaluate.run(load_config([*tiny_args, "method=rules"]), {})
    pd.testing.assert_frame_equal(before, pd.read_parquet(finished / "predictions.parquet"))


def test_a_run_is_evaluated_on_another_models_texts_in_a_copy(tiny_args, scripted, monkeypatch):
    monkeypatch.setattr(engines, "_engine", lambda config: scripted)
    folder = trained([*tiny_args, "method=tamml", "alignment.style=false", "llm=smollm2"])
    files_before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    scripted.asked.clear()
    faithful, scripted.reply = scripted.reply, lambda request: " ".join(reversed(faithful(request).split()))
    assert main(["evaluate", f"run={folder}", "llm=openai", "llm.model=owner/other", "llm.base_url=http://x"]) == 0
    other = folder.parent.with_name(f"{folder.parent.name}@owner-other") / folder.name
    assert files_before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert scripted.asked and len(experiment_runs(folder.parent.parent)) == 2
    results = pd.read_parquet(other / "results.parquet")
    assert set(results["method"]) == {other.parent.name} and run_config(other).llm.model == "owner/other"
    before, after = (pd.read_parquet(where / "predictions.parquet") for where in (folder, other))
    assert list(before["record"]) == list(after["record"])
    assert not before["probabilities"].map(tuple).equals(after["probabilities"].map(tuple))
    scripted.asked.clear()
    assert main(["evaluate", f"run={other}"]) == 0
    pd.testing.assert_frame_equal(after, pd.read_parquet(other / "predictions.parquet"))
    assert main(["evaluate", f"run={folder}", "llm=smollm2"]) == 0 and scripted.asked == []
    assert len(experiment_runs(folder.parent.parent)) == 2


def test_the_cost_covers_training_and_evaluation_in_one_or_two_processes(tiny_args, scripted, tmp_path, monkeypatch):
    monkeypatch.setattr(engines, "_engine", lambda config: scripted)
    scripted.reply = faithful

    def cost(where, **own):
        config = load_config(
            [
                *tiny_args,
                "method=ours",
                "alignment.style=false",
                "trainer.epochs=1",
                f"output={tmp_path / where}",
                f"store.path={tmp_path / where}",
            ]
        )
        (evaluate if own.pop("again", None) else train).run(config, own)
        told = json.loads((run_folder(config) / "run.json").read_text())
        return {
            name: {key: value for key, value in told[name].items() if key not in ("calls", "hits", "seconds")}
            for name in ("llm", "llm_train")
            if name in told
        }

    whole = cost("whole")
    assert 0 < whole["llm_train"]["generations"] < whole["llm"]["generations"]
    assert cost("whole", again=True) == whole
    assert cost("apart", evaluate="false")["llm_train"] == whole["llm_train"]
    assert cost("apart", again=True) == whole


def test_evaluating_an_untrained_run_names_the_command(tiny_args):
    with pytest.raises(UserError, match="python -m project train"):
        evaluate.run(load_config([*tiny_args, "method=rules"]), {})


def test_a_resumed_run_equals_an_uninterrupted_one(tiny_args, tmp_path):
    args = [*tiny_args, "method=rules", "trainer.epochs=8"]
    undisturbed = trained([*args, f"output={tmp_path / 'undisturbed'}"])
    folder = run_folder(load_config(args))
    # A shell that has the tests in its background makes them, and their children, deaf to Ctrl-C.
    process = subprocess.Popen(
        [sys.executable, "-m", "project", "train", *args],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "COLUMNS": "200"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    last = folder / "checkpoints/last.ckpt"
    deadline = time.monotonic() + 120
    while not last.is_file():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "from its last checkpoint" in errors
    assert not (folder / "results.parquet").exists()
    resumed = trained(args)
    for name in ("predictions.parquet", "results.parquet"):
        pd.testing.assert_frame_equal(pd.read_parquet(undisturbed / name), pd.read_parquet(resumed / name))


@pytest.mark.parametrize(
    "method", [("method=freelb",), ("method=rules", "perturbation.num_candidates=2")], ids=" ".join
)
def test_a_variant_broken_off_in_its_last_epoch_ends_as_if_undisturbed(tiny_args, tmp_path, monkeypatch, method):
    undisturbed = trained([*tiny_args, *method, f"output={tmp_path / 'undisturbed'}"])

    def broken(module, batch, batch_idx):
        if module.current_epoch == 2 and batch_idx == 1:
            raise KeyboardInterrupt
        return learn(module, batch, batch_idx)

    learn = RobustModule.training_step
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt, match="from its last checkpoint"):
        patched.setattr(RobustModule, "training_step", broken)
        trained([*tiny_args, *method])
    resumed = trained([*tiny_args, *method])
    pd.testing.assert_frame_equal(*(pd.read_parquet(run / "predictions.parquet") for run in (undisturbed, resumed)))
    first, second = (json.loads((run / "run.json").read_text()) for run in (undisturbed, resumed))
    assert all(first.get(key) == second.get(key) for key in ("steps", "forward_samples", "scoring_samples", "val"))


def test_a_wandb_run_is_written_offline_under_an_id_of_its_own(tiny_args, tmp_path):
    folder = trained([*tiny_args, "method=rules", "wandb.mode=offline", "trainer.epochs=1"])
    runs = list((folder / "wandb").glob("offline-run-*"))
    assert len(runs) == 1 and list(runs[0].glob("*.wandb"))
