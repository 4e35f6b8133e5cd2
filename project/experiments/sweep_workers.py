"""Share the trials of a sweep among workers: files on a shared disk claim trials and show which workers are alive."""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import optuna
from optuna.trial import Trial, TrialState

from .optuna_private import resume_trial

_HEARTBEAT_SECONDS = 30
"""Interval of a worker's heartbeats."""
_ABANDONED_SECONDS = 300
"""Time without a heartbeat after which a trial counts as abandoned by its worker."""


def claim(folder: Path, name: str) -> bool:
    """Return True if this worker is the first to claim the name; exclusive creation is atomic on NFS too."""
    (folder / "claims").mkdir(exist_ok=True)
    try:
        (folder / "claims" / name).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def next_trial(study: optuna.Study, folder: Path, count: int) -> Trial | None:
    """Return an abandoned trial, else a new one; None if all trials are finished or running."""
    for frozen in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        restarts = frozen.user_attrs.get("taken_up", 0)
        if _is_abandoned(frozen, folder) and claim(folder, f"{frozen.number}-again-{restarts}"):
            trial = resume_trial(study, frozen)
            trial.set_user_attr("taken_up", restarts + 1)
            return _assign(trial, folder)
    # Slots only count trials: a slot's number is not that of its trial.
    if any(claim(folder, f"slot-{slot}") for slot in range(count)):
        return _assign(study.ask(), folder)
    return None


def _assign(trial: Trial, folder: Path) -> Trial:
    """Assign the trial to this worker and return it."""
    (folder / "claims" / f"{trial.number}-alive").touch()
    trial.set_user_attr("worker", f"{socket.gethostname()}:{os.getpid()}")
    return trial


def _is_abandoned(frozen: optuna.trial.FrozenTrial, folder: Path) -> bool:
    """Return True if the worker of a running trial is gone."""
    host, _, process = frozen.user_attrs.get("worker", "").rpartition(":")
    if host == socket.gethostname():
        return not Path(f"/proc/{process}").exists()
    path = folder / "claims" / f"{frozen.number}-alive"
    last_sign = path.stat().st_mtime if path.exists() else frozen.datetime_start.timestamp()
    return time.time() - last_sign > _ABANDONED_SECONDS


@contextlib.contextmanager
def heartbeat(path: Path) -> Iterator[None]:
    """Touch the trial's heartbeat file regularly, so that workers on other hosts see that this worker is alive."""
    finished = threading.Event()

    def touch_regularly() -> None:
        while not finished.wait(_HEARTBEAT_SECONDS):
            path.touch()

    thread = threading.Thread(target=touch_regularly, daemon=True)
    thread.start()
    try:
        yield
    finally:
        finished.set()
        thread.join()
