"""Sweep files give the command lines of a W&B agent, and the same trials without a server."""

import io
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pandas as pd
import pytest
import yaml
from optuna.trial import TrialState
from rich.console import Console
from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

from project.cli import train
from project.cli.main import main
from project.config.compose import CONF, load_config
from project.config.run_identity import run_folder
from project.errors import UserError
from project.experiments import sweep, sweep_workers
from project.experiments.sweep_file import read_sweep
from project.llm import factory as engines
from tests.conftest import faithful

FILES = sorted((CONF / "sweep").glob("*.yaml"))
SMALL = """\
method: grid
metric: {name: val/best_score, goal: maximize}
parameters:
  trainer.lr: {values: [0.001, 0.02]}
  perturbation.weight: {value: 1.0}
"""


@pytest.fixture
def fast(tiny_args):
    """Settings with the tiny rows and encoder instead of the demo's."""
    return ["experiment=default", *tiny_args, "trainer.epochs=1", "alignment.style=false"]


@pytest.fixture
def write_sweep(tmp_path):
    def write(text):
        path = tmp_path / "mine.yaml"
        path.write_text(text)
        return path

    return write


def agents_command(path, values):
    """Return the command of `wandb agent` for the values, built by W&B's own code."""
    mapping = yaml.safe_load(path.read_text())
    variables = create_sweep_command_args({"args": {key: {"value": value} for key, value in values.items()}})
    variables |= {"env": ["/usr/bin/env"]}
    command = []
    for word in mapping["command"]:
        command += variables[word[2:-1]] if word.startswith("${") else [word]
    return command


def sample_values(path):
    """Return one value of each parameter, of the type that W&B draws."""
    parameters = yaml.safe_load(path.read_text())["parameters"]
    return {key: value.get("value", value.get("values", [value.get("min")])[-1]) for key, value in parameters.items()}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_command_of_an_agent_trains_a_run(path, fast, scripted, monkeypatch):
    monkeypatch.setattr(engines, "_engine", lambda config: scripted)
    scripted.reply = faithful
    env, python, *words = agents_command(path, sample_values(path))
    assert (env, python, words[:3]) == ("/usr/bin/env", "python", ["-m", "project", "train"])
    # The swept keys come from the file; all other settings are small.
    swept = {word.partition("=")[0] for word in words}
    small = [word for word in fast if word.partition("=")[0] not in swept - {"experiment"}]
    arguments = [word for word in words[3:] if not word.startswith("experiment=")]
    assert main(["train", *small, *arguments]) == 0
    config = load_config([*small, *[word for word in arguments if word != "evaluate=false"]])
    info = json.loads((run_folder(config) / "run.json").read_text())
    assert info["val"]["best_score"] >= 0 and "drop_ratio" in info["val"]["last"]
    assert not (run_folder(config) / "predictions.parquet").exists()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_runs_a_trial_without_a_server(path, fast, scripted, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(engines, "_engine", lambda config: scripted)
    scripted.reply = faithful
    assert main(["sweep", str(path), "trials=1", *fast]) == 0
    table = pd.read_csv(tmp_path / "outputs" / "sweeps" / path.stem / "trials.csv")
    assert list(table["state"]) == ["complete"] and table["val/drop_ratio"].notna().all()
    assert "best: python -m project train" in capsys.readouterr().out


@pytest.mark.parametrize("value", [None, True, 1e-05, [1, 2], "a b", 3, 0.1])
def test_values_in_python_syntax_are_parsed(value):
    key = {
        type(None): "data.limit",
        bool: "store.engine",
        list: "robustness.levels",
        str: "data.question",
        int: "seed",
    }.get(type(value), "trainer.lr")
    value = [0.1, 0.2] if isinstance(value, list) else value
    (argument,) = create_sweep_command_args({"args": {key: {"value": value}}})["args_no_hyphens"]
    parsed = load_config([argument])
    for part in key.split("."):
        parsed = getattr(parsed, part)
    assert parsed == value


def test_a_grid_trains_every_point_once(write_sweep, fast, tmp_path, capsys):
    path = write_sweep(SMALL)
    assert main(["sweep", str(path), *fast, "method=plain"]) == 0
    table = pd.read_csv(tmp_path / "outputs" / "sweeps" / "mine" / "trials.csv")
    assert sorted(table["trainer.lr"]) == [0.001, 0.02] and set(table["state"]) == {"complete"}
    assert list(table["val/best_score"]) == sorted(table["val/best_score"], reverse=True)
    best = json.loads((Path(table["folder"][0]) / "run.json").read_text())["val"]["best_score"]
    assert table["val/best_score"][0] == pytest.approx(best) and not list(tmp_path.rglob("predictions.parquet"))
    out = capsys.readouterr().out
    assert f"trainer.lr={table['trainer.lr'][0]:g}" in out.replace("\n", "").split("best: ")[1]
    modified = os.stat(table["folder"][0] + "/run.json").st_mtime_ns
    assert main(["sweep", str(path), *fast, "method=plain"]) == 0
    assert os.stat(table["folder"][0] + "/run.json").st_mtime_ns == modified


def test_a_changed_sweep_file_cannot_reuse_the_folder(write_sweep, fast, capsys):
    path = write_sweep(SMALL)
    assert main(["sweep", str(path), *fast, "method=plain"]) == 0
    write_sweep(SMALL.replace("0.02", "0.03"))
    assert main(["sweep", str(path), *fast, "method=plain"]) == 2
    assert "holds a sweep of another mine.yaml" in capsys.readouterr().err


def test_a_failed_trial_is_recorded_and_does_not_stop_the_sweep(write_sweep, fast, tmp_path, capsys):
    path = write_sweep("""\
method: grid
metric: {name: val/best_score, goal: maximize}
parameters:
  model.lora.targets: {values: [[nothing], [query]]}
""")
    assert main(["sweep", str(path), *fast, "method=plain"]) == 0
    table = pd.read_csv(tmp_path / "outputs" / "sweeps" / "mine" / "trials.csv")
    assert list(table["state"]) == ["complete", "fail"] and "fits no layer" in table["error"][1]
    assert "failed: model.lora.targets=['nothing'] fits no layer" in capsys.readouterr().out.replace("\n", " ")


def test_a_sweep_fails_if_every_trial_fails(write_sweep, fast):
    path = write_sweep(SMALL.replace("maximize", "minimize"))
    assert main(["sweep", str(path), *fast, "method=plain"]) == 1


def test_a_bad_trial_is_pruned(write_sweep, fast, tmp_path):
    path = write_sweep("""\
method: random
metric: {name: val/best_score, goal: maximize}
early_terminate: {type: hyperband, min_iter: 1, max_iter: 4, eta: 2}
parameters:
  trainer.lr: {values: [0.02]}
""")
    arguments = [*fast, "method=plain", "trainer.epochs=3"]
    study = sweep.open_study(read_sweep(path, arguments), tmp_path / "outputs" / "sweeps" / "mine")
    for _ in range(12):  # trials with the best score from the first epoch on, in every bracket
        trial = study.ask()
        for epoch in range(4):
            trial.report(2.0, epoch)
            trial.should_prune()  # advances the trial to the next rung
        study.tell(trial, 2.0)
    pruned = 0
    for _ in range(3):
        trial = study.ask()
        outcome = sweep.run_trial(read_sweep(path, arguments), study, trial, tmp_path / "outputs" / "sweeps" / "mine")
        pruned += outcome == "stopped early"
        if outcome == "stopped early":
            assert len(study.trials[trial.number].intermediate_values) < 3
            break
    assert pruned


COMMAND = [sys.executable, "-m", "project", "sweep"]


def test_two_workers_share_the_trials_of_one_sweep(write_sweep, fast, tmp_path):
    path = write_sweep(SMALL.replace("[0.001, 0.02]", "[0.001, 0.002, 0.003, 0.004]"))
    workers = [
        subprocess.Popen([*COMMAND, str(path), *fast, "method=plain"], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = [worker.communicate(timeout=300)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0]
    trials = sum(output.count("trial ") for output in outputs)
    table = pd.read_csv(tmp_path / "outputs" / "sweeps" / "mine" / "trials.csv")
    assert len(table) == 4 and trials >= 4 and sorted(table["trainer.lr"]) == [0.001, 0.002, 0.003, 0.004]
    assert set(pd.read_csv(tmp_path / "outputs" / "sweeps" / "mine" / "trials.csv")["state"]) == {"complete"}


def test_the_trial_of_a_killed_worker_is_resumed(write_sweep, fast, tmp_path):
    path = write_sweep(SMALL)
    command = [*COMMAND, str(path), *fast, "method=plain", "trainer.epochs=40"]
    worker = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(tmp_path.rglob("last.ckpt")):
        assert worker.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    assert subprocess.run(command, stdout=subprocess.DEVNULL, timeout=300).returncode == 0
    table = pd.read_csv(tmp_path / "outputs" / "sweeps" / "mine" / "trials.csv")
    assert sorted(table["trainer.lr"]) == [0.001, 0.02] and set(table["state"]) == {"complete"}


def test_only_a_trial_without_heartbeat_is_taken_from_another_worker(write_sweep, fast, tmp_path):
    folder = tmp_path / "outputs" / "sweeps" / "mine"
    study = sweep.open_study(read_sweep(write_sweep(SMALL), [*fast, "method=plain"]), folder)
    trial = sweep_workers.next_trial(study, folder, 1)
    trial.set_user_attr("worker", f"another-host:{os.getpid()}")
    with sweep_workers.heartbeat(folder / "claims" / "0-alive"):
        time.sleep(0.1)
        assert sweep_workers.next_trial(study, folder, 1) is None
    os.utime(folder / "claims" / "0-alive", (0, 0))
    assert sweep_workers.next_trial(study, folder, 1).number == 0
    assert sweep_workers.next_trial(study, folder, 1) is None  # the trial is claimed


def test_values_on_a_logarithmic_scale_are_rounded_to_their_step(write_sweep):
    definition = read_sweep(
        write_sweep("""\
method: random
metric: {name: val/drop_ratio}
parameters:
  perturbation.weight: {distribution: q_log_uniform_values, min: 0.5, max: 8, q: 0.5}
  trainer.lr: {distribution: log_uniform, min: -9, max: -5}
  trainer.epochs: {min: 1, max: 3}
""")
    )
    study = optuna.create_study()
    for _ in range(20):
        values = sweep._suggest(definition, study.ask())
        assert float(values["perturbation.weight"]) % 0.5 == 0 and 0.5 <= float(values["perturbation.weight"]) <= 8
        assert 1e-4 < float(values["trainer.lr"]) < 7e-3 and values["trainer.epochs"] in ("1", "2", "3")
    assert study.get_trials(states=(TrialState.RUNNING,))


@pytest.mark.parametrize(
    ("text", "typo", "message"),
    [
        ("method: grid", "method: gird", "method: gird is none of grid, random, bayes; did you mean grid?"),
        ("val/best_score", "val/scores", "metric.name: val/scores is not a validation metric"),
        ("maximize", "max", "metric.goal: max is neither"),
        ("trainer.lr", "trainer.lrr", "parameters: trainer.lrr=0.001: command line: unknown key"),
        ("[0.001, 0.02]", "[0.001, many]", "parameters: trainer.lr=many"),
        ("[0.001, 0.02]", "[0.001, -1]", "parameters: trainer.lr=-1"),
        ("values: [0.001, 0.02]", "value: []", "trainer.lr=[]"),
        ("values: [0.001, 0.02]", "values: 3", "trainer.lr: values must be a list"),
        ("values: [0.001, 0.02]", "min: 0.1", "trainer.lr: max must be a number, and is null"),
        ("values: [0.001, 0.02]", "min: 0.1, max: 0.01", "min=0.1 must be under max=0.01"),
        ("values: [0.001, 0.02]", "min: 0.1, max: 0.2", "a grid needs values, not a range"),
        ("values: [0.001, 0.02]", "min: 0, max: 1, distribution: normal", "distribution: normal is none of"),
        ("values: [0.001, 0.02]", "vals: [1]", "unknown key vals"),
        ("values: [0.001, 0.02]", "parameters: {a: {value: 1}}", "write the dotted key"),
        (
            "parameters:",
            "early_terminate: {type: median}\nparameters:",
            "early_terminate.type: median is not hyperband",
        ),
        ("parameters:", "paramters:", "unknown key paramters"),
    ],
)
def test_a_typo_is_a_one_line_error_with_the_file_and_the_key(write_sweep, capsys, text, typo, message):
    path = write_sweep(SMALL.replace(text, typo))
    assert main(["validate", f"sweep={path}"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line and str(path) in line


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_shipped_sweep_files_are_valid(path, capsys):
    assert main(["validate", f"sweep={path}"]) == 0 and "every value composes" in capsys.readouterr().out


def test_a_random_sweep_needs_a_number_of_trials(write_sweep, capsys):
    path = write_sweep(SMALL.replace("grid", "random"))
    for arguments in ([], ["trials=0"], ["trials=many"]):
        assert main(["sweep", str(path), *arguments]) == 2
    assert capsys.readouterr().err.count("give the sweep's number of trials") == 3


def test_a_run_of_a_wandb_agent_has_the_agents_run_id(fast, monkeypatch, tmp_path):
    for key, value in {"WANDB_SWEEP_ID": "s1", "WANDB_RUN_ID": "agents1", "WANDB_MODE": "offline"}.items():
        monkeypatch.setenv(key, value)
    arguments = [word for word in fast if not word.startswith("wandb.")]
    config = load_config([*arguments, "method=plain", "wandb.group=mine"])
    train.run(config, {"evaluate": "false"})
    (wandb_folder,) = (run_folder(config) / "wandb").glob("offline-run-*")
    assert wandb_folder.name.endswith("-agents1")


def test_the_goal_must_match_the_direction_of_the_metric(write_sweep, fast, tmp_path):
    definition = read_sweep(write_sweep(SMALL.replace("maximize", "minimize")), [*fast, "method=plain"])
    folder = tmp_path / "outputs" / "sweeps" / "mine"
    study = sweep.open_study(definition, folder)
    outcome = sweep.run_trial(definition, study, sweep_workers.next_trial(study, folder, 1), folder)
    assert "metric.goal: accuracy is better when it is higher; write maximize" in outcome
    with pytest.raises(UserError, match="better when it is lower"):
        read_sweep(write_sweep(SMALL.replace("val/best_score", "val/drop_ratio")))


def test_the_best_command_keeps_brackets_and_is_quoted_for_a_shell(write_sweep, tmp_path):
    path = write_sweep("""\
method: grid
metric: {name: val/best_score, goal: maximize}
parameters:
  model.lora.targets: {value: [query, value]}
  data.question: {values: ["[query,value] or both?"]}
""")
    definition, study, out = read_sweep(path), optuna.create_study(direction="maximize"), io.StringIO()
    study.tell(study.ask(), 0.5)
    assert sweep.print_sweep(definition, study, tmp_path, Console(file=out, width=80)) == 0
    command = out.getvalue().split("best: ")[1]
    assert shlex.split(command)[4:] == [
        'model.lora.targets=["query", "value"]',
        "data.question=[query,value] or both?",
    ]


def test_a_bayesian_sweep_draws_equal_values_with_one_worker_and_with_two(write_sweep, tmp_path):
    definition = read_sweep(
        write_sweep("method: bayes\nmetric: {name: val/drop_ratio}\nparameters: {trainer.lr: {min: 0.001, max: 0.1}}\n")
    )
    values = []
    for folder, workers in ((tmp_path / "one", 1), (tmp_path / "two", 2)):
        studies = [sweep.open_study(definition, folder) for _ in range(workers)]
        lines = []
        for number in range(15):
            study = studies[number % workers]
            trial = study.ask()
            lines.append(sweep._suggest(definition, trial)["trainer.lr"])
            study.tell(trial, number % 4)
        values.append(lines)
    assert values[0] == values[1] and len(set(values[0])) == 15
