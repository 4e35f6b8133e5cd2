"""Train the runs of a study file one after another, each in a separate process; resumable, within a budget of hours."""

import contextlib
import fcntl
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from ..config.run_identity import run_folder
from ..config.schema import Config
from ..errors import UserError
from ..evaluation.cross_validation import pool_folds
from ..evaluation.run_status import RESULTS_FILE
from ..report.page import report
from ..runtime.atomic_io import write_text
from .study_file import Entry, PlannedRun, Study
from .study_status import estimate_remaining_seconds, format_duration, missing_generations, overview
from .tuning import choose_settings, tuning_table

_SAVE_SECONDS = 60
"""Interval at which the spent time is saved."""
_GRACE_SECONDS = 120
"""Time that an interrupted run has to save its state."""
_ERROR_LINE = re.compile(r"(error|interrupted|[\w.]*(Error|Exception|Interrupt))\b")


def run_study(study: Study, hours: float) -> int:
    """Train the unfinished runs until `hours` are spent, write the report, and return the number of failed runs.

    Raises UserError if another process runs the study, and KeyboardInterrupt on Ctrl-C.
    """
    with _locked(study.folder) as lock, _interruptible():
        session = Session(study, hours, lock)
        session.run()
        return session.close()


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[int]:
    """Hold the study's lock and yield its file descriptor; runs inherit it, so it is held while any run is alive.

    Raises UserError if another process holds the lock.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"another process holds {folder}/lock (a running study, or a run left by a killed one); "
                "wait for it or stop it"
            ) from error
        yield file.fileno()


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Handle SIGTERM like Ctrl-C; handle SIGINT too, because background processes of a shell ignore it."""
    handlers = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


class Session:
    """One session of a study; `<folder>/state.json` has the seconds of all sessions and the errors of failed runs."""

    def __init__(self, study: Study, hours: float, lock: int):
        self.study, self.budget, self.lock = study, 3600 * hours, lock
        self.state = read_state(study.folder)
        self.attempted: set[Path] = set()

    def run(self) -> None:
        """Train the unfinished trials and runs until the budget is spent."""
        for entry, seed in self.study.steps():
            if any([self._train(trial) for trial in entry.trials()]):
                table = tuning_table(self.study.entries)
                write_text(self.study.folder / "tuning.csv", table.to_csv(index=False))
            settings = choose_settings(entry)
            if settings is not None:
                self._train(entry.run(seed, settings))

    def _is_spent(self) -> bool:
        return self.state["seconds"] >= self.budget

    def _train(self, run: PlannedRun) -> bool:
        """Train a run in a separate process; return False if it was skipped.

        Finished runs, runs of this session and runs beyond the budget are skipped.
        """
        if run.folder in self.attempted or self._is_spent():
            return False
        self.attempted.add(run.folder)
        if run.finished:
            return False
        if run.problem:
            self._record_failure(run, run.problem)
            return False
        items = overview(self.study)
        remaining = estimate_remaining_seconds(items)
        _print(
            f"{run.label} | {sum(not item.finished for item in items)} of {len(items)} to do, "
            f"{'unknown time' if remaining is None else f'about {format_duration(remaining)}'} | spent "
            f"{format_duration(self.state['seconds'])} of {format_duration(self.budget)}"
        )
        log = self.study.folder / "logs" / (re.sub(r"[^\w.=-]+", "-", run.label) + ".log")
        log.parent.mkdir(exist_ok=True)
        start = time.monotonic()
        code = self._call(["train", *run.arguments, *(["evaluate=false"] if run.trial else [])], log)
        if code == 0 and run.finished:
            self.state["failed"].pop(run.label, None)
            _print(f"  finished in {format_duration(time.monotonic() - start)}")
        else:
            killed = f"killed by signal {-code}; " if code < 0 else ""
            self._record_failure(run, run.problem or f"{killed}{_error_line(log) or f'exit code {code}'} ({log})")
        self._save()
        return True

    def _record_failure(self, run: PlannedRun, error: str) -> None:
        self.state["failed"][run.label] = error
        self._save()
        _print(f"{run.label} failed: {error}")

    def _call(self, arguments: list[str], log: Path) -> int:
        """Run one command with output to `log`, save the spent seconds meanwhile, and return the exit code."""
        spent, start = self.state["seconds"], time.monotonic()
        with log.open("w", encoding="utf-8") as out, launch(arguments, out, self.lock) as child:
            try:
                while True:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        return child.wait(timeout=_SAVE_SECONDS)
                    self.state["seconds"] = spent + time.monotonic() - start
                    self._save()
            except KeyboardInterrupt as error:
                child.send_signal(signal.SIGINT)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(timeout=_GRACE_SECONDS)
                raise KeyboardInterrupt("run the same command to resume the study") from error
            finally:
                child.kill()  # has no effect on a process that has exited
                self.state["seconds"] = spent + time.monotonic() - start
                self._save()

    def _save(self) -> None:
        write_text(self.study.folder / "state.json", json.dumps(self.state, indent=2, ensure_ascii=False) + "\n")

    def close(self) -> int:
        """Pool the folds, print a summary, write the report, and return the number of failed runs."""
        for first, seed in self.study.steps():
            if first.fold == 0:
                self._pool(first, seed)
        items = overview(self.study)
        errors = self.state["failed"]
        failed = {label: errors[label] for item in items if not item.finished and (label := item.run.label) in errors}
        unfinished = sum(not item.finished for item in items)
        _print(
            f"{len(items) - unfinished} of {len(items)} are finished, {len(failed)} failed, {unfinished} are left; "
            f"spent {format_duration(self.state['seconds'])} of {format_duration(self.budget)}"
        )
        for label, error in failed.items():
            _print(f"  failed: {label}: {error}")
        if unfinished and self._is_spent():
            _print("  the budget is spent; give hours= for more")
        for config in report_configs(self.study):
            report(config, console=Console())
        return len(failed)

    def _pool(self, first: Entry, seed: int) -> None:
        """Pool the folds of a method and seed into one run of all rows, if every fold is finished."""
        folds = [entry for entry in self.study.entries if (entry.tier, entry.name) == (first.tier, first.name)]
        settings_by_fold = [choose_settings(entry) for entry in folds]
        if None in settings_by_fold:
            return
        runs = [entry.run(seed, settings) for entry, settings in zip(folds, settings_by_fold, strict=True)]
        if all(run.finished for run in runs):
            pool_folds(runs[0].config, [run.folder for run in runs], run_folder(first.pooled_config(seed)))


@contextlib.contextmanager
def launch(arguments: list[str], out, lock: int) -> Iterator[subprocess.Popen]:
    """Start a command of the project in a new process session, so that it gets Ctrl-C only from this process."""
    with subprocess.Popen(
        [sys.executable, "-m", "project", *arguments],
        stdout=out,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        pass_fds=[lock],
    ) as child:
        yield child


def read_state(folder: Path) -> dict:
    """Return the spent `seconds`, and the last error of each `failed` run by label.

    Raises UserError if the file is damaged.
    """
    path = folder / "state.json"
    if not path.is_file():
        return {"seconds": 0.0, "failed": {}}
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        return {"seconds": float(state["seconds"]), "failed": dict(state["failed"])}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}); delete it to count the hours from 0") from error


def report_configs(study: Study) -> list[Config]:
    """Return one configuration for each experiment folder with a finished run."""
    configs: dict[Path, Config] = {}
    for entry, seed in study.steps():
        folder = run_folder(entry.pooled_config(seed))
        if (folder / RESULTS_FILE).is_file():
            configs.setdefault(folder.parent.parent, entry.pooled_config(seed))
    return list(configs.values())


def _error_line(log: Path) -> str:
    """Return the last line of a log that looks like an error, else its last line."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if _ERROR_LINE.match(line)]
    return ([*lines, *errors] or [""])[-1].removeprefix("error: ")


def print_study(study: Study, hours: float) -> None:
    """Print the runs in their order, whether they are finished, and the estimated hours of the unfinished ones."""
    items = overview(study)
    for item in items:
        _print(
            f"{'finished' if item.finished else 'to do':<9} {item.run.label}"
            + (f": {item.problem}" if item.problem else "")
        )
    remaining, (missing, seconds) = estimate_remaining_seconds(items), missing_generations(study)
    _print(
        f"{sum(not item.finished for item in items)} of {len(items)} runs and trials to do: "
        f"{'unknown time, none is finished yet' if remaining is None else f'about {format_duration(remaining)}'}, "
        "without new texts of the language model"
    )
    _print(
        f"{missing} texts are not in the store: "
        f"{'unknown time, a stage has no text yet' if seconds is None else f'about {format_duration(seconds)}'}, "
        "without redraws"
    )
    _print(f"spent {format_duration(read_state(study.folder)['seconds'])} of {format_duration(3600 * hours)}")


def _print(line: str) -> None:
    print(line, flush=True)  # flush, because users follow a study through its log
