"""Run a W&B sweep file with Optuna, without a W&B server; any number of workers share the trials."""

import json
import shlex
import time
import traceback
import warnings
from pathlib import Path

import lightning as L
import optuna
import pandas as pd
import wandb
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner, HyperbandPruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import Trial, TrialState
from rich.console import Console
from rich.table import Table

from ..config.compose import load_config
from ..config.run_identity import format_value, run_folder
from ..data.record import seeded
from ..errors import UserError
from ..evaluation.run_info import RunInfo
from ..metrics.scores import SCORES
from ..runtime.atomic_io import write_text
from ..runtime.signals import Interrupted
from ..training.fit import TrainingSummary
from .run_training import train
from .sweep_file import Parameter, Sweep
from .sweep_workers import claim, heartbeat, next_trial

_PRINTED_TRIALS = 10
"""Trials in the table on the terminal, the best ones."""


def run_sweep(sweep: Sweep, count: int) -> int:
    """Train trials until the sweep has `count` of them, and print the best; return 1 if none has a score, else 0.

    Several workers share the trials. Raises UserError if the folder holds a sweep of another file or other settings.
    """
    folder = Path(load_config(sweep.arguments({})).output) / "sweeps" / sweep.path.stem
    study = open_study(sweep, folder)
    console = Console(highlight=False)
    while (trial := next_trial(study, folder, count)) is not None:
        console.print(f"trial {trial.number + 1} of {count}: {' '.join(sweep.arguments(_suggest(sweep, trial)))}")
        console.print(f"  {run_trial(sweep, study, trial, folder)}")
    return print_sweep(sweep, study, folder, console)


def open_study(sweep: Sweep, folder: Path) -> optuna.Study:
    """Create or open the sweep's study on the shared disk.

    Raises UserError if the study has another sweep file or other settings.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder.mkdir(parents=True, exist_ok=True)
    journal = str(folder / "journal.log")
    # A lock by open(O_EXCL) also works on NFS.
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
    if claim(folder, "begun"):
        for point in sweep.grid() if sweep.method == "grid" else []:
            study.enqueue_trial(point)
        study.set_user_attr("definition", definition)
    while "definition" not in study.user_attrs:  # wait for the worker that enqueues the grid
        time.sleep(0.2)
    return study


def _sampler(sweep: Sweep, number: int = 0) -> BaseSampler:
    """Return the sampler of one trial; each trial has its own seed, because workers with one seed propose equal values.

    The constant liar keeps TPE away from the values of running trials.
    """
    if sweep.method != "bayes":
        return RandomSampler()
    seed = int(seeded("sweep", sweep.path.read_text(encoding="utf-8"), number).integers(2**31))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return TPESampler(constant_liar=True, seed=seed)


def _pruner(sweep: Sweep) -> BasePruner:
    """Return W&B's hyperband pruner, with brackets at min_iter x eta^k epochs or at max_iter / eta^s."""
    if sweep.early is None:
        return NopPruner()
    eta, max_iter = sweep.early.get("eta", 3), sweep.early.get("max_iter")
    min_iter = sweep.early.get("min_iter") or max(1, max_iter // eta ** sweep.early.get("s", 1))
    return HyperbandPruner(min_resource=min_iter, max_resource=max_iter or "auto", reduction_factor=max(2, eta))


def _suggest(sweep: Sweep, trial: Trial) -> dict[str, str]:
    """Return the trial's value of each varied parameter, as on a command line."""
    trial.study.sampler = _sampler(sweep, trial.number)
    for parameter in sweep.varied:
        _suggest_parameter(parameter, trial)
    return _format_params(sweep, trial.params)


def _suggest_parameter(parameter: Parameter, trial: Trial) -> None:
    key, low, high = parameter.key, parameter.low, parameter.high
    step = None if parameter.log else parameter.step  # Optuna has no log scale with steps; see _format_params
    if parameter.values:
        trial.suggest_categorical(key, parameter.values)
    elif isinstance(low, int):
        trial.suggest_int(key, low, high, step=step or 1, log=parameter.log)
    else:
        trial.suggest_float(key, low, high, step=step, log=parameter.log)


def _format_params(sweep: Sweep, params: dict) -> dict[str, str]:
    """Format values as on a command line; values on a logarithmic scale are rounded to their step."""
    texts = {}
    for parameter in sweep.varied:
        value = params[parameter.key]
        if parameter.step and parameter.log:
            value = min(max(round(value / parameter.step) * parameter.step, parameter.low), parameter.high)
        texts[parameter.key] = format_value(value)
    return texts


class TrialPruner(L.Callback):
    """Report the metric of each validation to Optuna; raise TrialPruned to stop a bad trial early."""

    def __init__(self, trial: Trial, metric: str):
        self._trial, self._metric = trial, metric.removeprefix("val/")

    def on_validation_end(self, trainer, module) -> None:
        """Report the metric, then stop the trial if Optuna prunes it."""
        (summary,) = (callback for callback in trainer.callbacks if isinstance(callback, TrainingSummary))
        self._trial.report(summary.scores[self._metric], trainer.current_epoch)
        if self._trial.should_prune():
            raise optuna.TrialPruned


def run_trial(sweep: Sweep, study: optuna.Study, trial: Trial, folder: Path) -> str:
    """Train a trial in a separate run folder and return its outcome as text; a failure does not stop the sweep."""
    # Each trial uses one device: workers, not trials, divide a machine or a cluster.
    arguments = [
        *sweep.arguments(_suggest(sweep, trial)),
        f"output={folder}",
        f"wandb.group={sweep.path.stem}",
        "trainer.devices=1",
        "trainer.nodes=1",
    ]

    try:
        with heartbeat(folder / "claims" / f"{trial.number}-alive"):
            config = load_config(arguments)
            trial.set_user_attr("folder", str(run_folder(config)))
            train(config, evaluate=False, callbacks=[TrialPruner(trial, sweep.metric)])
            value = _value(sweep, trial)
        study.tell(trial, value)
        return f"{sweep.metric} {value:.4f}"
    except optuna.TrialPruned:
        study.tell(trial, state=TrialState.PRUNED)
        return "stopped early"
    except Interrupted as error:
        raise Interrupted("run the same command to resume the sweep") from error
    except Exception as error:
        message = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        reason = message.splitlines()[0][:300]
        log = folder / f"trial-{trial.number}.log"
        log.write_text(traceback.format_exc(), encoding="utf-8")
        trial.set_user_attr("error", reason)
        study.tell(trial, state=TrialState.FAIL)
        return f"failed: {reason} ({log})"
    finally:
        wandb.finish()  # an interrupted training leaves its W&B run open


def _value(sweep: Sweep, trial: Trial) -> float:
    """Return the objective of a finished trial: the best val/score, or the last value of a score.

    Raises UserError if the sweep's goal is the wrong direction for the metric.
    """
    info = RunInfo.read(Path(trial.user_attrs["folder"]))
    if info.val is None:
        raise UserError(f"method={info.method} has no validation score")
    for key, value in info.val.last.items():
        trial.set_user_attr(f"val/{key}", value)
    if sweep.metric != "val/drop_ratio" and SCORES[info.metric].higher_is_better != sweep.maximize:
        raise UserError(
            f"{sweep.path}: metric.goal: {info.metric} is better when it is "
            f"{'lower; write minimize' if sweep.maximize else 'higher; write maximize'}"
        )
    return {**info.val.last, "best_score": info.val.best_score}[sweep.metric.removeprefix("val/")]


def print_sweep(sweep: Sweep, study: optuna.Study, folder: Path, console: Console) -> int:
    """Write trials.csv, print the best trials and the command of the best; return 1 if no trial has a score, else 0."""
    trials = [trial for trial in study.get_trials(deepcopy=False) if trial.state != TrialState.WAITING]
    rows = [
        {
            "trial": trial.number + 1,
            "state": trial.state.name.lower(),
            sweep.metric: trial.value,
            **{key: trial.user_attrs.get(key) for key in ("val/clean", "val/drop_ratio") if key != sweep.metric},
            **trial.params,
            "seconds": trial.duration and round(trial.duration.total_seconds(), 1),
            "folder": trial.user_attrs.get("folder"),
            "error": trial.user_attrs.get("error"),
        }
        for trial in trials
    ]
    table = pd.DataFrame(rows).sort_values(sweep.metric, ascending=not sweep.maximize, na_position="last")
    write_text(folder / "trials.csv", table.to_csv(index=False))
    columns = [name for name in table.columns if name not in ("seconds", "folder", "error")]
    terminal_table = Table(*columns, title=f"{sweep.path.stem}: the best of {len(table)} trials")
    for row in table.head(_PRINTED_TRIALS)[columns].itertuples(index=False):
        terminal_table.add_row(
            *("" if pd.isna(value) else f"{value:.4g}" if isinstance(value, float) else str(value) for value in row)
        )
    console.print(terminal_table)
    counts = table["state"].value_counts()
    console.print(", ".join(f"{count} {state}" for state, count in counts.items()) + f": {folder / 'trials.csv'}")
    if not counts.get("complete"):
        return 1
    best = sweep.arguments(_format_params(sweep, study.best_trial.params))
    console.print(f"best: python -m project train {shlex.join(best)}", soft_wrap=True, markup=False)
    return 0
