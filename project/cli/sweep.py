"""The verb `sweep`: train the trials of a sweep file."""

from pathlib import Path

from ..errors import UserError
from ..experiments.sweep import run_sweep
from ..experiments.sweep_file import Sweep, read_sweep


def run(settings: list[str], args: dict) -> int:
    """Train the trials of the sweep file, and print the best; return 1 if none has a score, else 0.

    Workers with the same command share the trials. Raises UserError if the file is wrong, or if the sweep's folder
    holds a sweep of another file or other settings.
    """
    words = args.get("words", [])
    if len(words) != 1:
        raise UserError("sweep: name one sweep file, such as conf/sweep/lora.yaml")
    sweep = read_sweep(Path(words[0]), settings)
    return run_sweep(sweep, _count(sweep, args.get("trials")))


def _count(sweep: Sweep, trials: str | None) -> int:
    """Return the number of trials: of a grid at most all its points."""
    if trials is None and sweep.method == "grid":
        return len(sweep.grid())
    if trials is None or not trials.isdecimal() or int(trials) < 1:
        raise UserError(f"trials={trials or ''}: give the sweep's number of trials, such as trials=40")
    return min(int(trials), len(sweep.grid())) if sweep.method == "grid" else int(trials)
