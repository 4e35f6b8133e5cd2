"""The progress of a study, and estimates of the remaining time."""

import statistics
from dataclasses import dataclass
from pathlib import Path

from ..data.rows import read_rows
from ..llm.factory import open_llm
from ..pipeline.pipeline import open_pipeline
from .prepare import BLOCK_ROWS, fill
from .study_file import PlannedRun, Study
from .tuning import choose_settings


@dataclass(frozen=True)
class Item:
    """A run or trial of the study, and whether it is finished; `problem` is the reason why it cannot be trained."""

    run: PlannedRun
    finished: bool
    problem: str | None = None


def overview(study: Study) -> list[Item]:
    """Return trials and runs in order, each once; runs whose tuning is unfinished appear with default settings."""
    items: dict[Path, Item] = {}
    for entry, seed in study.steps():
        for trial in entry.trials():
            if trial.folder not in items:
                items[trial.folder] = _item(trial)
        is_tuned = all(items[trial.folder].finished for trial in entry.trials())
        settings = choose_settings(entry) if is_tuned else None
        run = entry.run(seed, settings or ())
        if run.folder not in items:
            items[run.folder] = Item(run, False) if settings is None else _item(run)
    return list(items.values())


def _item(run: PlannedRun) -> Item:
    return Item(run, True) if run.finished else Item(run, False, run.problem)


def estimate_remaining_seconds(items: list[Item]) -> float | None:
    """Estimate the seconds of the unfinished runs and trials from the finished ones of the same method.

    A method without a finished run takes the mean of all. Returns None if no run is finished.
    """
    durations: dict[tuple[bool, str], list[float]] = {}
    for item in items:
        if item.finished:
            durations.setdefault((item.run.trial, item.run.config.method), []).append(item.run.seconds)
    if not durations:
        return None
    all_durations = [seconds for of_method in durations.values() for seconds in of_method]
    missing = [(item.run.trial, item.run.config.method) for item in items if not item.finished and not item.problem]
    return sum(statistics.mean(durations.get(key, all_durations)) for key in missing)


def missing_generations(study: Study) -> tuple[int, float | None]:
    """Return the number of generations missing from the store and the estimated seconds to create them.

    The estimate uses the averages of each stage; it is None if a stage has no stored generation. Texts do not depend
    on the training seed, so one run per method is counted; equal texts count once.
    """
    seconds_by_request: dict[str, float | None] = {}
    counted = set()
    for entry, seed in study.steps():
        config = entry.run(seed).config
        key = repr(
            [
                config.data,
                config.experts,
                config.llm,
                config.alignment,
                config.perturbation,
                config.robustness,
                config.model.kind,
            ]
        )
        if key in counted:
            continue
        counted.add(key)
        rows, llm = read_rows(config.data), open_llm(config, dry=True)
        with llm.store:
            fill(open_pipeline(config, rows, llm), rows, BLOCK_ROWS, lambda count: None)
            pace = llm.store.mean_costs(llm.name)
        seconds_by_request |= {
            key: pace[request.stage][2] if request.stage in pace else None for key, request in llm.planned.items()
        }
    seconds = seconds_by_request.values()
    return len(seconds), None if None in seconds else sum(seconds)


def format_duration(seconds: float) -> str:
    """Format seconds in hours, minutes or seconds."""
    if seconds >= 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.0f} min" if seconds >= 60 else f"{seconds:.0f} s"
