"""The verb `sweep`: a W&B sweep file without a W&B server, by Optuna, shared by any number of workers."""

import contextlib
import json
import os
import socket
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import optuna
import pandas as pd
import wandb
from optuna.pruners import BasePruner, HyperbandPruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import Trial, TrialState
from rich.console import Console
from rich.table import Table

from ..config.compose import load_config
from ..config.run_identity import format_value, run_folder
from ..errors import UserError
from ..evaluation.run_status import RUN_JSON
from ..metrics.scores import SCORES
from ..runtime.atomic_io import write_text
from ..runtime.signals import Interrupted
from ..training.fit import watched
from . import run_training as train
from .optuna_private import resume_trial
from .sweep_file import Parameter, Sweep, read_sweep

BEAT = 30
"""Seconds between two signs of life of a worker."""
LEFT = 300
"""Seconds without a sign of life after which a trial counts as left by its worker."""
SHOWN = 10
"""Trials in the table on the terminal, the best ones."""


def run(settings: list[str], args: dict) -> int:
    """Make trials until the sweep has as many as asked, and say which is best; 1 where none has a score.

    Further workers with the same command share them. Raises UserError where the file is wrong, or was another before.
    """
    words = args.get("words", [])
    if len(words) != 1:
        raise UserError("sweep: name one sweep file, such as conf/sweep/lora.yaml")
    sweep = read_sweep(Path(words[0]), settings)
    folder = Path(load_config(sweep.arguments({})).output) / "sweeps" / sweep.path.stem
    count = _count(sweep, args.get("trials"))
    study = open_study(sweep, folder)
    console = Console(highlight=False)
    while (trial := next_trial(study, folder, count)) is not None:
        console.print(f"trial {trial.number + 1} of {count}: {' '.join(sweep.arguments(_chosen(sweep, trial)))}")
        console.print(f"  {run_trial(sweep, study, trial, folder)}")
    return print_sweep(sweep, study, folder, console)


def _count(sweep: Sweep, given: str | None) -> int:
    if given is None and sweep.method == "grid":
        return len(sweep.grid())
    if given is None or not given.isdecimal() or int(given) < 1:
        raise UserError(f"trials={given or ''}: give the sweep's number of trials, such as trials=40")
    return min(int(given), len(sweep.grid())) if sweep.method == "grid" else int(given)


def open_study(sweep: Sweep, folder: Path) -> optuna.Study:
    """The sweep's study on the shared disk. Raises UserError where it was begun with another file or other settings."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder.mkdir(parents=True, exist_ok=True)
    journal = str(folder / "journal.log")
    # A lock made by open(O_EXCL) holds on NFS too.
    storage = JournalStorage(JournalFileBackend(journal, lock_obj=JournalFileOpenLock(journal)))
    definition = json.loads(
        json.dumps(
            [
                sweep.method,
                sweep.metric,
                sweep.maximize,
                sweep.early,
                sorted(sweep.settings),
                [vars(parameter) for parameter in sweep.parameters],
            ]
        )
    )
    study = optuna.create_study(
        storage=storage,
        study_name="sweep",
        sampler=_sampler(sweep),
        pruner=_pruner(sweep),
        direction="maximize" if sweep.maximize else "minimize",
        load_if_exists=True,
    )
    if study.user_attrs.get("definition", definition) != definition:
        raise UserError(
            f"{folder} holds a sweep of another {sweep.path.name}, or of other settings; give output=, or "
            "delete the folder"
        )
    if _claimed(folder, "begun"):
        for chosen in sweep.grid() if sweep.method == "grid" else []:
            study.enqueue_trial(chosen)
        study.set_user_attr("definition", definition)
    while "definition" not in study.user_attrs:  # another worker enqueues the grid
        time.sleep(0.2)
    return study


def _sampler(sweep: Sweep) -> BaseSampler:
    # No seed: workers with equal ones would propose the same.
    return TPESampler() if sweep.method == "bayes" else RandomSampler()


def _pruner(sweep: Sweep) -> BasePruner:
    """W&B's hyperband: brackets at min_iter x eta^k epochs, or at max_iter / eta^s."""
    if sweep.early is None:
        return NopPruner()
    eta, most = sweep.early.get("eta", 3), sweep.early.get("max_iter")
    least = sweep.early.get("min_iter") or max(1, most // eta ** sweep.early.get("s", 1))
    return HyperbandPruner(min_resource=least, max_resource=most or "auto", reduction_factor=max(2, eta))


def _chosen(sweep: Sweep, trial: Trial) -> dict[str, str]:
    """The value of each varied parameter, as on a command line."""
    for parameter in sweep.varied:
        _suggest(parameter, trial)
    return _written(sweep, trial.params)


def _suggest(parameter: Parameter, trial: Trial) -> None:
    key, low, high = parameter.key, parameter.low, parameter.high
    step = None if parameter.log else parameter.step  # Optuna has no steps on a logarithmic scale; see _written
    if parameter.values:
        trial.suggest_categorical(key, parameter.values)
    elif isinstance(low, int):
        trial.suggest_int(key, low, high, step=step or 1, log=parameter.log)
    else:
        trial.suggest_float(key, low, high, step=step, log=parameter.log)


def _written(sweep: Sweep, params: dict) -> dict[str, str]:
    """Values as a command line has them, rounded to their step where it is on a logarithmic scale."""
    written = {}
    for parameter in sweep.varied:
        value = params[parameter.key]
        if parameter.step and parameter.log:
            value = min(max(round(value / parameter.step) * parameter.step, parameter.low), parameter.high)
        written[parameter.key] = format_value(value)
    return written


def _claimed(folder: Path, name: str) -> bool:
    """Whether this worker is the first to claim a name; an exclusive creation is atomic on NFS too."""
    (folder / "claims").mkdir(exist_ok=True)
    try:
        (folder / "claims" / name).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def next_trial(study: optuna.Study, folder: Path, count: int) -> Trial | None:
    """A trial that a worker left, else a new one; None where all are made or being made."""
    for frozen in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        times = frozen.user_attrs.get("taken_up", 0)
        if _left(frozen, folder) and _claimed(folder, f"{frozen.number}-again-{times}"):
            trial = resume_trial(study, frozen)
            trial.set_user_attr("taken_up", times + 1)
            return _taken(trial, folder)
    # Which slot it is does not matter: as many are claimed as there are trials.
    if any(_claimed(folder, f"slot-{slot}") for slot in range(count)):
        return _taken(study.ask(), folder)
    return None


def _taken(trial: Trial, folder: Path) -> Trial:
    """The trial, as that of this worker."""
    (folder / "claims" / f"{trial.number}-alive").touch()
    trial.set_user_attr("worker", f"{socket.gethostname()}:{os.getpid()}")
    return trial


def _left(frozen: optuna.trial.FrozenTrial, folder: Path) -> bool:
    """Whether the worker of a running trial is gone."""
    host, _, process = frozen.user_attrs.get("worker", "").rpartition(":")
    if host == socket.gethostname():
        return not Path(f"/proc/{process}").exists()
    beat = folder / "claims" / f"{frozen.number}-alive"
    since = beat.stat().st_mtime if beat.exists() else frozen.datetime_start.timestamp()
    return time.time() - since > LEFT


@contextlib.contextmanager
def _alive(beat: Path) -> Iterator[None]:
    """Touches the file that _taken made now and then, so that workers of other hosts see that this one lives."""
    ended = threading.Event()

    def beating() -> None:
        while not ended.wait(BEAT):
            beat.touch()

    thread = threading.Thread(target=beating, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def run_trial(sweep: Sweep, study: optuna.Study, trial: Trial, folder: Path) -> str:
    """Train a trial in a run folder of its own, and say what came of it; a trial that fails stops nothing."""
    # A trial has one device: its workers are what shares a machine or a cluster.
    arguments = [
        *sweep.arguments(_chosen(sweep, trial)),
        f"output={folder}",
        f"wandb.group={sweep.path.stem}",
        "trainer.devices=1",
        "trainer.nodes=1",
    ]

    def watch(epoch: int, panel: dict[str, float]) -> None:
        trial.report(panel[sweep.metric.removeprefix("val/")], epoch)
        if trial.should_prune():
            raise optuna.TrialPruned

    try:
        with _alive(folder / "claims" / f"{trial.number}-alive"), watched(watch):
            config = load_config(arguments)
            trial.set_user_attr("folder", str(run_folder(config)))
            train.run(config, {"evaluate": "false"})
            value = _value(sweep, trial)
        study.tell(trial, value)
        return f"{sweep.metric} {value:.4f}"
    except optuna.TrialPruned:
        study.tell(trial, state=TrialState.PRUNED)
        return "stopped early"
    except Interrupted as error:
        raise Interrupted("the sweep goes on with the same command") from error
    except Exception as error:
        told = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        reason = told.splitlines()[0][:300]
        log = folder / f"trial-{trial.number}.log"
        log.write_text(traceback.format_exc(), encoding="utf-8")
        trial.set_user_attr("error", reason)
        study.tell(trial, state=TrialState.FAIL)
        return f"failed: {reason} ({log})"
    finally:
        wandb.finish()  # that of a training that was broken off


def _value(sweep: Sweep, trial: Trial) -> float:
    """What the objective is of a finished trial: the best val/score, or the last value of a score.

    Raises UserError where the sweep wants the worse of it.
    """
    info = json.loads((Path(trial.user_attrs["folder"]) / RUN_JSON).read_text(encoding="utf-8"))
    val = info.get("val")
    if not val:
        raise UserError(f"method={info['method']} has no validation score")
    for key, value in val.get("last", {}).items():
        trial.set_user_attr(f"val/{key}", value)
    if sweep.metric != "val/drop_ratio" and SCORES[info["metric"]].higher_is_better != sweep.maximize:
        raise UserError(
            f"{sweep.path}: metric.goal: {info['metric']} is better when it is "
            f"{'lower; write minimize' if sweep.maximize else 'higher; write maximize'}"
        )
    return {**val["last"], "best_score": val["best_score"]}[sweep.metric.removeprefix("val/")]


def print_sweep(sweep: Sweep, study: optuna.Study, folder: Path, console: Console) -> int:
    """Write trials.csv, print the best trials and the command of the best; 1 where none has a score."""
    trials = [each for each in study.get_trials(deepcopy=False) if each.state != TrialState.WAITING]
    rows = [
        {
            "trial": each.number + 1,
            "state": each.state.name.lower(),
            sweep.metric: each.value,
            **{key: each.user_attrs.get(key) for key in ("val/clean", "val/drop_ratio") if key != sweep.metric},
            **each.params,
            "seconds": each.duration and round(each.duration.total_seconds(), 1),
            "folder": each.user_attrs.get("folder"),
            "error": each.user_attrs.get("error"),
        }
        for each in trials
    ]
    table = pd.DataFrame(rows).sort_values(sweep.metric, ascending=not sweep.maximize, na_position="last")
    write_text(folder / "trials.csv", table.to_csv(index=False))
    shown_columns = [name for name in table.columns if name not in ("seconds", "folder", "error")]
    printed = Table(*shown_columns, title=f"{sweep.path.stem}: the best of {len(table)} trials")
    for row in table.head(SHOWN)[shown_columns].itertuples(index=False):
        printed.add_row(
            *("" if pd.isna(value) else f"{value:.4g}" if isinstance(value, float) else str(value) for value in row)
        )
    console.print(printed)
    counts = table["state"].value_counts()
    console.print(", ".join(f"{count} {state}" for state, count in counts.items()) + f": {folder / 'trials.csv'}")
    if not counts.get("complete"):
        return 1
    best = sweep.arguments(_written(sweep, study.best_trial.params))
    console.print(f"best: python -m project train {' '.join(best)}", soft_wrap=True)
    return 0
