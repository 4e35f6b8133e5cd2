"""How far a study is, and what the rest of it will take."""

import statistics
from dataclasses import dataclass
from pathlib import Path

from ..data.rows import read_rows
from ..llm.factory import open_llm
from ..pipeline.pipeline import open_pipeline
from .prepare import BLOCK, fill
from .study_file import PlannedRun, Study, choice


@dataclass(frozen=True)
class Item:
    """A run or trial of the study, and whether it is finished; `problem` says why it cannot be made."""

    run: PlannedRun
    done: bool
    problem: str | None = None


def overview(study: Study) -> list[Item]:
    """Trials and runs, each once, in their order; where nothing is chosen yet, a run stands there with no choice."""
    items: dict[Path, Item] = {}
    for entry, seed in study.steps():
        for trial in entry.trials():
            if trial.folder not in items:
                items[trial.folder] = _looked_at(trial)
        chosen = choice(entry) if all(items[trial.folder].done for trial in entry.trials()) else None
        run = entry.run(seed, chosen or ())
        if run.folder not in items:
            items[run.folder] = Item(run, False) if chosen is None else _looked_at(run)
    return list(items.values())


def _looked_at(run: PlannedRun) -> Item:
    return Item(run, True) if run.finished else Item(run, False, run.problem)


def estimate_remaining_seconds(items: list[Item]) -> float | None:
    """Seconds that the unfinished runs and trials will take, each as its method's finished ones; None before any is.

    A method without a finished run is taken for the mean of all.
    """
    done: dict[tuple[bool, str], list[float]] = {}
    for item in items:
        if item.done:
            done.setdefault((item.run.trial, item.run.config.method), []).append(item.run.seconds)
    if not done:
        return None
    every = [seconds for known in done.values() for seconds in known]
    wanted = [(item.run.trial, item.run.config.method) for item in items if not item.done and not item.problem]
    return sum(statistics.mean(done.get(key, every)) for key in wanted)


def missing_generations(study: Study) -> tuple[int, float | None]:
    """How many texts that `prepare` would make the store lacks, and their seconds by the averages of their
    stages; None where one is unknown.

    The training seed is in no text, so one run of a method stands for all; equal texts are counted once.
    """
    found: dict[str, float | None] = {}
    seen = set()
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
        if key in seen:
            continue
        seen.add(key)
        rows, llm = read_rows(config.data), open_llm(config, dry=True)
        with llm.store:
            fill(open_pipeline(config, rows, llm), rows, BLOCK, lambda count: None)
            pace = llm.store.mean_costs(llm.name)
        found |= {
            key: pace[request.stage][2] if request.stage in pace else None for key, request in llm.planned.items()
        }
    return len(found), None if None in found.values() else sum(found.values())


def format_duration(seconds: float) -> str:
    """Seconds in the unit that fits."""
    if seconds >= 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.0f} min" if seconds >= 60 else f"{seconds:.0f} s"
