"""The verb `study`: the runs of a study file, one after another in processes of their own, resumable, within hours."""

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
from .study_file import Entry, PlannedRun, Study, choice, tuning_table
from .study_status import estimate_remaining_seconds, format_duration, missing_generations, overview

MINUTE = 60
"""Seconds between two notes of what was spent."""
GRACE = 120
"""Seconds that an interrupted run has to keep its last epoch."""
_LAST_WORD = re.compile(r"(error|interrupted|[\w.]*(Error|Exception|Interrupt))\b")


def run_study(study: Study, hours: float) -> int:
    """Train the unfinished runs until `hours` are spent, write the report, and return the number of failed runs.

    Raises UserError if another process runs the study, and KeyboardInterrupt on Ctrl-C.
    """
    with _alone(study.folder) as lock, _interruptible():
        session = Session(study, hours, lock)
        session.go()
        return session.close()


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[int]:
    """The descriptor of the study's lock, which its runs inherit: it is held while any of them is alive.

    Raises UserError where another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"{folder}: the study is under way in another process, or the last run of one that was "
                "killed is; wait for it, or end it"
            ) from error
        yield file.fileno()


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Let a request to end do what Ctrl-C does, also where a shell has the process in its background."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Session:
    """One sitting of a study. What was spent in all sittings, and why a run failed, is in `<folder>/state.json`."""

    def __init__(self, study: Study, hours: float, lock: int):
        self.study, self.budget, self.lock = study, 3600 * hours, lock
        self.state = read_state(study.folder)
        self.tried: set[Path] = set()

    def go(self) -> None:
        """Make what is not there, until the budget is spent."""
        for entry, seed in self.study.steps():
            if any([self._make(trial) for trial in entry.trials()]):
                table = tuning_table(self.study.entries)
                write_text(self.study.folder / "tuning.csv", table.to_csv(index=False))
            chosen = choice(entry)
            if chosen is not None:
                self._make(entry.run(seed, chosen))

    def _spent(self) -> bool:
        return self.state["seconds"] >= self.budget

    def _make(self, run: PlannedRun) -> bool:
        """Train in a process of its own, unless it is there, was tried in this sitting, or nothing is left to spend.

        Returns whether it was tried.
        """
        if run.folder in self.tried or self._spent():
            return False
        self.tried.add(run.folder)
        if run.finished:
            return False
        if run.problem:
            self._note(run, run.problem)
            return False
        items = overview(self.study)
        left = estimate_remaining_seconds(items)
        _say(
            f"{run.label} | {sum(not item.done for item in items)} of {len(items)} to do, "
            f"{'unknown time' if left is None else f'about {format_duration(left)}'} | spent "
            f"{format_duration(self.state['seconds'])} of {format_duration(self.budget)}"
        )
        log = self.study.folder / "logs" / (re.sub(r"[^\w.=-]+", "-", run.label) + ".log")
        log.parent.mkdir(exist_ok=True)
        start = time.monotonic()
        code = self._call(["train", *run.arguments, *(["evaluate=false"] if run.trial else [])], log)
        if code == 0 and run.finished:
            self.state["failed"].pop(run.label, None)
            _say(f"  finished in {format_duration(time.monotonic() - start)}")
        else:
            killed = f"killed by signal {-code}; " if code < 0 else ""
            self._note(run, run.problem or f"{killed}{_last_word(log) or f'exit code {code}'} ({log})")
        self._keep()
        return True

    def _note(self, run: PlannedRun, error: str) -> None:
        self.state["failed"][run.label] = error
        self._keep()
        _say(f"{run.label} failed: {error}")

    def _call(self, arguments: list[str], log: Path) -> int:
        """The exit code of one command, whose seconds are noted while it goes on; its output goes to `log`."""
        before, start = self.state["seconds"], time.monotonic()
        with log.open("w", encoding="utf-8") as out, launched(arguments, out, self.lock) as child:
            try:
                while True:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        return child.wait(timeout=MINUTE)
                    self.state["seconds"] = before + time.monotonic() - start
                    self._keep()
            except KeyboardInterrupt as error:
                child.send_signal(signal.SIGINT)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(timeout=GRACE)
                raise KeyboardInterrupt("the study goes on with the same command") from error
            finally:
                child.kill()  # which does nothing to a process that has ended
                self.state["seconds"] = before + time.monotonic() - start
                self._keep()

    def _keep(self) -> None:
        write_text(self.study.folder / "state.json", json.dumps(self.state, indent=2, ensure_ascii=False) + "\n")

    def close(self) -> int:
        """Pool the folds, say what is done, failed and left, and write the report; returns how many failed."""
        for first, seed in self.study.steps():
            if first.fold == 0:
                self._pool(first, seed)
        items = overview(self.study)
        known = self.state["failed"]
        failed = {label: known[label] for item in items if not item.done and (label := item.run.label) in known}
        left = sum(not item.done for item in items)
        _say(
            f"{len(items) - left} of {len(items)} are finished, {len(failed)} failed, {left} are left; spent "
            f"{format_duration(self.state['seconds'])} of {format_duration(self.budget)}"
        )
        for label, error in failed.items():
            _say(f"  failed: {label}: {error}")
        if left and self._spent():
            _say("  the budget is spent; give hours= for more")
        for config in reported(self.study):
            report(config, console=Console())
        return len(failed)

    def _pool(self, first: Entry, seed: int) -> None:
        """A method and seed of which every fold is finished becomes one run of all rows."""
        folds = [entry for entry in self.study.entries if (entry.tier, entry.name) == (first.tier, first.name)]
        choices = [choice(entry) for entry in folds]
        if None in choices:
            return
        runs = [entry.run(seed, chosen) for entry, chosen in zip(folds, choices, strict=True)]
        if all(run.finished for run in runs):
            pool_folds(runs[0].config, [run.folder for run in runs], run_folder(first.whole(seed)))


@contextlib.contextmanager
def launched(arguments: list[str], out, lock: int) -> Iterator[subprocess.Popen]:
    """A command of the project in a session of its own, so that Ctrl-C reaches it once, from here."""
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
    """Seconds that were spent, and by its label why a run failed at last. Raises UserError on a damaged file."""
    path = folder / "state.json"
    if not path.is_file():
        return {"seconds": 0.0, "failed": {}}
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        return {"seconds": float(state["seconds"]), "failed": dict(state["failed"])}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}); delete it, and the hours are counted anew") from error


def reported(study: Study) -> list[Config]:
    """One configuration for each folder of runs in which one is finished."""
    found: dict[Path, Config] = {}
    for entry, seed in study.steps():
        folder = run_folder(entry.whole(seed))
        if (folder / RESULTS_FILE).is_file():
            found.setdefault(folder.parent.parent, entry.whole(seed))
    return list(found.values())


def _last_word(log: Path) -> str:
    """The line in which a process told its error, else its last line."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    told = [line for line in lines if _LAST_WORD.match(line)]
    return ([*lines, *told] or [""])[-1].removeprefix("error: ")


def print_study(study: Study, hours: float) -> None:
    """Print the runs in their order, which of them are finished, and the hours that the others will take."""
    items = overview(study)
    for item in items:
        _say(
            f"{'finished' if item.done else 'to do':<9} {item.run.label}"
            + (f": {item.problem}" if item.problem else "")
        )
    left, (asked, seconds) = estimate_remaining_seconds(items), missing_generations(study)
    _say(
        f"{sum(not item.done for item in items)} of {len(items)} runs and trials to do: "
        f"{'unknown time, none is finished yet' if left is None else f'about {format_duration(left)}'}, "
        "besides new texts of the language model"
    )
    _say(
        f"{asked} of these texts are not in the store: "
        f"{'unknown time, for it has none of some stage' if seconds is None else f'about {format_duration(seconds)}'}, "
        "besides redraws"
    )
    _say(f"spent {format_duration(read_state(study.folder)['seconds'])} of {format_duration(3600 * hours)}")


def _say(line: str) -> None:
    print(line, flush=True)  # a study is watched through its log
