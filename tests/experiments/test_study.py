"""A study trains its runs in order, resumes after interruptions, and tunes by validation scores."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import settings as settings_of
from hypothesis import strategies as st

from project.cli.main import main
from project.config.compose import load_config, to_yaml
from project.config.run_identity import run_folder
from project.config.schema import SplitConfig
from project.data.column_inference import infer_columns
from project.data.record import Record
from project.data.splits import split_of
from project.errors import UserError
from project.experiments import study
from project.experiments.study_file import read_study

ROOT = Path(__file__).parent.parent.parent
ONE = {"A": {"methods": ["plain"], "seeds": [0]}}
SHORT = ["trainer.epochs=1", "robustness.missing=none", "robustness.orders=0", "robustness.resamples=20"]


@pytest.fixture
def study_file(tmp_path):
    """Return a function that writes a study file, by default of the methods plain and rules with two seeds."""

    def write(**changes):
        tiers = {"A": {"methods": ["plain", "rules"], "seeds": [0, 1]}}
        path = tmp_path / "study.yaml"
        path.write_text(yaml.safe_dump({"experiment": "default", "tiers": tiers} | changes), encoding="utf-8")
        return str(path)

    return write


@pytest.fixture
def settings(tiny_args):
    """Command-line settings of a study of the smallest runs."""
    return [*tiny_args, *SHORT]


@pytest.fixture
def in_process(monkeypatch):
    """Run the commands in this process; return the list of their arguments."""
    commands = []

    class Child:
        def __init__(self, arguments, out):
            self.arguments, self.out = arguments, out

        def wait(self, timeout):
            commands.append(self.arguments)
            with contextlib.redirect_stdout(self.out), contextlib.redirect_stderr(self.out):
                return main(self.arguments)

        def kill(self):
            pass

    @contextlib.contextmanager
    def launch(arguments, out, lock):
        yield Child(arguments, out)

    monkeypatch.setattr(study, "launch", launch)
    return commands


@pytest.fixture
def fake_runs(monkeypatch):
    """Write only the files of a finished run, unless `before` returns an exit code other than 0, or raises.

    The validation score is the learning rate.
    """

    class FakeRun:
        launched: list[str] = []
        metric, score = "accuracy", "best_score"
        before = staticmethod(lambda config: 0)

        def __init__(self, arguments, out):
            self.arguments, self.out = arguments, out

        def wait(self, timeout):
            trial = "evaluate=false" in self.arguments
            config = load_config([argument for argument in self.arguments[1:] if argument != "evaluate=false"])
            config.data = infer_columns(config.data)
            self.launched.append(f"{'trial ' if trial else ''}{config.name} {config.seed}")
            if code := self.before(config):
                self.out.write("Traceback\nValueError: it broke\nwandb: done\n")
                return code
            folder = run_folder(config)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "config.yaml").write_text(to_yaml(config))
            info = {"method": config.method, "name": config.name, "data": config.data.name, "seed": config.seed}
            info |= {"metric": self.metric, "val": {self.score: config.trainer.lr}, "seconds": {"train": 7200.0}}
            (folder / "run.json").write_text(json.dumps(info))
            if not trial:
                (folder / "results.parquet").touch()
            return 0

        def send_signal(self, number):
            pass

        def kill(self):
            pass

    @contextlib.contextmanager
    def launch(arguments, out, lock):
        yield FakeRun(arguments, out)

    monkeypatch.setattr(study, "launch", launch)
    monkeypatch.setattr(study, "report_configs", lambda study: [])
    return FakeRun


def folder_of(tmp_path):
    return tmp_path / "outputs/default/study"


def test_a_study_tunes_trains_and_reports_every_method_and_seed_once(
    study_file, settings, in_process, tmp_path, capsys
):
    path = study_file(tune={"default": {"trainer.lr": [1e-3, 1e-2]}, "rules": {}})
    assert main(["study", path, *settings]) == 0
    runs = tmp_path / "outputs/default"
    assert {folder.relative_to(runs).as_posix() for folder in runs.glob("*/seed-*")} == {
        f"{method}/seed-{seed}" for method in ("plain", "rules") for seed in (0, 1)
    }
    assert (runs / "report/index.html").is_file()
    trials = sorted(folder_of(tmp_path).glob("tuning/default/*/seed-0"))
    assert len(trials) == 2 and not list(folder_of(tmp_path).rglob("predictions.parquet"))
    table = pd.read_csv(folder_of(tmp_path) / "tuning.csv")
    assert list(table["name"]) == ["plain", "plain"] and list(table["chosen"]) in ([True, False], [False, True])
    best = table.loc[table["validation"].idxmax()]
    assert best["chosen"] and best["metric"] == "accuracy"
    for seed in (0, 1):
        config = yaml.safe_load((runs / f"plain/seed-{seed}/config.yaml").read_text())
        assert f"trainer.lr={config['trainer']['lr']}" == best["settings"]
    commands = len(in_process)
    assert main(["study", path, *settings]) == 0
    assert len(in_process) == commands and "6 of 6 are finished, 0 failed" in capsys.readouterr().out


def test_all_methods_of_a_seed_are_trained_before_the_next_seed(study_file, settings, fake_runs):
    assert main(["study", study_file(), *settings]) == 0
    assert fake_runs.launched == ["plain 0", "rules 0", "plain 1", "rules 1"]


def test_an_interrupted_study_resumes_with_the_unfinished_runs(study_file, settings, fake_runs, capsys):
    def before(config):
        if fake_runs.launched[-1] == "rules 0" and fake_runs.launched.count("rules 0") == 1:
            raise KeyboardInterrupt

    fake_runs.before = staticmethod(before)
    assert main(["study", study_file(), *settings]) == 130
    assert "run the same command to resume the study" in capsys.readouterr().err
    assert main(["study", study_file(), *settings]) == 0
    assert fake_runs.launched == ["plain 0", "rules 0", "rules 0", "plain 1", "rules 1"]


def test_a_failed_run_is_recorded_with_its_error_and_retried_by_the_next_command(
    study_file, settings, fake_runs, tmp_path, capsys
):
    fake_runs.before = staticmethod(lambda config: config.name == "plain" and config.seed == 0)
    assert main(["study", study_file(), *settings]) == 1
    assert fake_runs.launched == ["plain 0", "rules 0", "plain 1", "rules 1"]
    failed = json.loads((folder_of(tmp_path) / "state.json").read_text())["failed"]
    assert failed["A: plain, seed 0"].startswith("ValueError: it broke (")
    assert "3 of 4 are finished, 1 failed, 1 are left" in capsys.readouterr().out
    fake_runs.before = staticmethod(lambda config: 0)
    assert main(["study", study_file(), *settings]) == 0
    assert fake_runs.launched[4:] == ["plain 0"]
    assert json.loads((folder_of(tmp_path) / "state.json").read_text())["failed"] == {}


def test_a_method_with_a_failed_trial_is_not_trained(study_file, settings, fake_runs, capsys):
    fake_runs.before = staticmethod(lambda config: config.method == "rules" and config.trainer.lr == 0.2)
    path = study_file(tune={"default": {"trainer.lr": [0.1, 0.2]}})
    assert main(["study", path, *settings]) == 1
    assert [run for run in fake_runs.launched if run.startswith(("plain ", "rules "))] == ["plain 0", "plain 1"]
    assert "failed: A: rules, trial trainer.lr=0.2: ValueError" in capsys.readouterr().out


@pytest.mark.parametrize(("metric", "better"), [("accuracy", "0.2"), ("rmse", "0.1")])
def test_settings_are_chosen_by_the_highest_score_or_the_lowest_error(
    study_file, settings, fake_runs, tmp_path, metric, better
):
    fake_runs.metric = metric
    path = study_file(tiers=ONE, tune={"default": {"trainer.lr": [0.1, 0.2]}})
    assert main(["study", path, *settings]) == 0
    table = pd.read_csv(folder_of(tmp_path) / "tuning.csv")
    assert set(table["settings"][table["chosen"]]) == {f"trainer.lr={better}"}


def test_a_method_whose_trial_has_no_validation_score_is_not_trained(study_file, settings, fake_runs, capsys):
    fake_runs.score = None
    path = study_file(tiers=ONE, tune={"default": {"trainer.lr": [0.1]}})
    assert main(["study", path, *settings]) == 1
    assert len(fake_runs.launched) == 1 and "give plain: {} under tune" in capsys.readouterr().out


def test_a_zero_shot_method_has_no_trials(study_file, settings, fake_runs):
    tiers = {"A": {"methods": ["llm", "plain"], "seeds": [0]}}
    settings = [setting for setting in settings if not setting.startswith("model.")]
    assert main(["study", study_file(tiers=tiers, tune={"default": {"trainer.lr": [0.1, 0.2]}}), *settings]) == 0
    assert fake_runs.launched[0] == "llm 0" and len(fake_runs.launched) == 4


def test_a_study_stops_between_runs_when_its_hours_are_spent(study_file, settings, fake_runs, tmp_path, capsys):
    folder_of(tmp_path).mkdir(parents=True)
    (folder_of(tmp_path) / "state.json").write_text(json.dumps({"seconds": 3 * 3600 - 1e-9, "failed": {}}))
    assert main(["study", study_file(hours=3), *settings]) == 0
    assert fake_runs.launched == ["plain 0"] and "the budget is spent" in capsys.readouterr().out
    assert main(["study", study_file(hours=3), *settings]) == 0
    assert fake_runs.launched == ["plain 0"]
    assert main(["study", study_file(hours=3), "hours=4", *settings]) == 0
    assert len(fake_runs.launched) == 4


def test_a_dry_run_lists_the_finished_runs_and_estimates_the_remaining_hours(study_file, settings, fake_runs, capsys):
    fake_runs.before = staticmethod(lambda config: config.seed == 1)
    main(["study", study_file(), *settings])
    launched = len(fake_runs.launched)
    capsys.readouterr()
    assert main(["study", study_file(), "dry_run=true", *settings]) == 0
    out = capsys.readouterr().out
    assert "finished  A: plain, seed 0" in out and "to do     A: rules, seed 1" in out
    assert "2 of 4 runs and trials to do: about 4.0 h" in out and len(fake_runs.launched) == launched


def test_a_dry_run_counts_the_texts_that_are_not_in_the_store_once(study_file, settings, capsys, tmp_path):
    tiers = {"A": {"methods": ["tamml", "ours"], "seeds": [0, 1]}}
    assert main(["study", study_file(tiers=tiers), "dry_run=true", *settings, "data.limit=12"]) == 0
    out_of_both = capsys.readouterr().out
    tiers = {"A": {"methods": ["ours"], "seeds": [0]}}
    assert main(["study", study_file(tiers=tiers), "dry_run=true", *settings, "data.limit=12"]) == 0
    out_of_ours = capsys.readouterr().out
    (line,) = [line for line in out_of_ours.splitlines() if "texts are not in the store" in line]
    assert line in out_of_both and int(line.split()[0]) > 20 and not (tmp_path / "outputs").exists()


def test_one_tier_can_be_selected(study_file, settings, fake_runs):
    tiers = {"A": {"methods": ["plain"], "seeds": [0]}, "B": {"methods": ["rules"], "seeds": [0]}}
    assert main(["study", study_file(tiers=tiers), "tier=B", *settings]) == 0
    assert fake_runs.launched == ["rules 0"]


def test_a_variant_has_a_name_and_settings_of_its_own(study_file, settings, fake_runs, tmp_path):
    variant = {"name": "weak", "method": "rules", "overrides": {"perturbation.level": 0.1}}
    tiers = {"A": {"methods": ["rules", variant], "seeds": [0], "overrides": {"trainer": {"lr": 0.5}}}}
    assert main(["study", study_file(tiers=tiers), *settings]) == 0
    config = yaml.safe_load((tmp_path / "outputs/default/weak/seed-0/config.yaml").read_text())
    assert (config["perturbation"]["level"], config["trainer"]["lr"], config["method"]) == (0.1, 0.5, "rules")


def test_a_running_study_cannot_be_started_again(study_file, settings, fake_runs, capsys):
    def before(config):
        assert main(["study", study_file(), *settings]) == 2
        assert "another process holds" in capsys.readouterr().err

    fake_runs.before = staticmethod(before)
    assert main(["study", study_file(), *settings]) == 0
    assert len(fake_runs.launched) == 4


def test_a_run_folder_of_another_configuration_is_a_failed_run_with_the_difference(
    study_file, settings, fake_runs, capsys
):
    assert main(["study", study_file(tiers=ONE), *settings]) == 0
    assert main(["study", study_file(), *settings, "trainer.lr=0.5"]) == 1
    out = capsys.readouterr().out
    assert "trainer.lr: 0.001 -> 0.5" in out and fake_runs.launched[1:] == ["rules 0", "plain 1", "rules 1"]


CHANGED = {"name": "plain", "method": "plain", "overrides": {"trainer.lr": 0.5}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tiers": {"A": {"methods": ["plane"], "seeds": [0]}}}, "tier A, plane: method=plane: .*did you mean plain"),
        ({"tiers": {"A": {"methods": ["plain"]}}}, "tier A: seeds must be a list of whole numbers"),
        ({"tiers": {"A": {"methods": ["plain"], "seed": [0]}}}, "unknown key seed.*did you mean seeds"),
        ({"tiers": {"A": {"methods": [], "seeds": [0]}}}, "tier A: no methods"),
        ({"tiers": {}}, "tiers is not set"),
        (
            {"tiers": {**ONE, "B": {"methods": [CHANGED], "seeds": [0]}}},
            "would hold two methods, A: plain and B: plain",
        ),
        ({"overrides": {"trainer.lrr": 1}, "tiers": ONE}, "tier A, plain: .*unknown key trainer.lrr"),
        (
            {"tune": {"plain": {"trainer.lr": [1]}, "default": {"trainer.lr": [1, 2]}}},
            "same number of trials.*plain 1, rules 2",
        ),
        ({"tune": {"rulse": {}}}, "no tier has rulse; did you mean rules"),
        ({"tune": {"default": {"trainer.lr": 1}}}, "trainer.lr must be a list"),
        ({"hours": 0}, "hours=0 must be a number above 0"),
        ({"folds": 1}, "folds=1 must be a whole number from 2"),
    ],
)
def test_a_wrong_study_file_raises_an_error_before_any_run(study_file, settings, changes, message):
    with pytest.raises(UserError, match=message):
        read_study(Path(study_file(**changes)), settings)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name one study file"),
        (["nowhere.yaml"], "nowhere.yaml: .*No such file"),
        (["FILE", "tier=Z"], "tier=Z: .*has A"),
        (["FILE", "hours=long"], "hours=long: give a number"),
        (["FILE", "method=ours"], "method cannot be given on the command line of a study"),
        (["FILE", "--print-config"], "study has many configurations"),
    ],
)
def test_a_wrong_command_is_a_one_line_error(study_file, settings, capsys, words, message):
    words = [study_file() if word == "FILE" else word for word in words]
    assert main(["study", *words, *settings]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error) and error.count("\n") == 1


@pytest.mark.parametrize("path", sorted((ROOT / "conf/study").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_shipped_study_files_are_valid(path):
    entries = read_study(path, ["data.path=somewhere"] if path.stem == "airbnb" else []).entries
    assert len(entries) >= 4


@settings_of(max_examples=30, deadline=None)
@given(folds=st.integers(2, 12), groups=st.lists(st.text(max_size=5), min_size=1, max_size=30, unique=True))
def test_each_group_is_in_the_test_rows_of_one_fold(folds, groups):
    for group in groups:
        splits = [
            split_of(Record("r", group, None, "t", None, "a"), SplitConfig(test=1 / folds, fold=fold, val=0.1))
            for fold in range(folds)
        ]
        assert splits.count("test") == 1 and (folds == 2 or "train" in splits)


def test_the_folds_are_pooled_into_one_run_with_one_prediction_per_row(
    study_file, settings, in_process, tmp_path, table_file
):
    assert main(["study", study_file(tiers=ONE, folds=3), *settings]) == 0
    assert len(in_process) == 3
    folder = tmp_path / "outputs/default/plain/seed-0"
    predictions, info = pd.read_parquet(folder / "predictions.parquet"), json.loads((folder / "run.json").read_text())
    clean = predictions[predictions["condition"] == "clean"]
    assert len(clean) == clean["record"].nunique() == len(pd.read_csv(table_file)) == info["rows"]["test"]
    infos = [
        json.loads(path.read_text()) for path in folder_of(tmp_path).glob("folds/fold-*/default/plain/seed-0/run.json")
    ]
    assert info["folds"] == 3 and info["steps"] == sum(fold["steps"] for fold in infos)
    results = pd.read_parquet(folder / "results.parquet")
    accuracy = results[(results["metric"] == "accuracy") & (results["condition"] == "clean")]["value"].item()
    assert accuracy == pytest.approx((clean["prediction"] == clean["target"]).mean())
    assert (tmp_path / "outputs/default/report/index.html").is_file()


@pytest.mark.slow
def test_a_stop_request_stops_the_run_too_and_saves_its_state(study_file, settings, tmp_path):
    settings = [*settings, "trainer.epochs=400", "trainer.patience=400"]
    process = subprocess.Popen(
        [sys.executable, "-m", "project", "study", study_file(), *settings],
        cwd=ROOT,
        text=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "COLUMNS": "200"},
    )
    folder = tmp_path / "outputs/default/plain/seed-0"
    deadline = time.monotonic() + 240
    while not (folder / "checkpoints/last.ckpt").is_file():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 130 and "run the same command to resume the study" in errors
    logs = "".join(path.read_text() for path in folder_of(tmp_path).glob("logs/*"))
    assert "from its last checkpoint" in " ".join(logs.split())
    assert json.loads((folder_of(tmp_path) / "state.json").read_text())["seconds"] > 0
    with study._locked(folder_of(tmp_path)):  # no process of the study is alive
        pass
