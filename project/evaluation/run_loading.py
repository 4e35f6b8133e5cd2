"""Find finished runs, read them from their folders, and name them."""

import glob
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ..errors import UserError
from .run_info import RUN_JSON, RunInfo
from .run_status import RESULTS_FILE

log = logging.getLogger(__name__)

FILES = (RUN_JSON, "predictions.parquet", RESULTS_FILE)
"""The files of a run folder after its evaluation."""
PREDICTION_COLUMNS = [
    "record",
    "group",
    "present",
    "condition",
    "kind",
    "corruption",
    "modality",
    "level",
    "order",
    "target",
    "prediction",
]
"""The columns of predictions.parquet that a Run holds in memory: all but the probabilities, which are large."""


@dataclass(frozen=True)
class Run:
    """One finished run: its folder, run.json, the PREDICTION_COLUMNS of its predictions, and its results."""

    folder: Path
    info: RunInfo
    predictions: pd.DataFrame
    results: pd.DataFrame

    def probabilities(self, conditions: list[str]) -> pd.DataFrame:
        """Read condition, record, target and probabilities of the rows under some conditions from the disk."""
        return pd.read_parquet(
            self.folder / "predictions.parquet",
            filters=[("condition", "in", conditions)],
            columns=["condition", "record", "target", "probabilities"],
        )


def run_folders(patterns: Iterable[str | Path]) -> list[Path]:
    """Return the folders of finished runs that paths and globs match, without duplicates, sorted.

    ** in a glob matches any number of folders. Unfinished runs are skipped with a warning. Raises UserError if a
    pattern matches no finished run.
    """
    folders = {}
    for pattern in map(str, patterns):
        matches = [Path(path) for path in glob.glob(pattern, recursive=True) if os.path.isdir(path)]
        missing = {folder: [name for name in FILES if not (folder / name).is_file()] for folder in matches}
        finished = [folder for folder in matches if not missing[folder]]
        if not finished:
            raise UserError(
                f"no finished run in {pattern}; make one with python -m project train, or name others, "
                "such as 'outputs/**/seed-*'"
            )
        for folder in sorted(set(matches) - set(finished)):
            log.warning("%s is left out: it has no %s", folder, ", ".join(missing[folder]))
        for folder in finished:
            folders.setdefault(folder.resolve(), folder)
    return sorted(folders.values())


def experiment_runs(folder: Path) -> list[Path]:
    """Return the finished runs of an experiment's folder. Raises UserError if there is none."""
    return run_folders([f"{glob.escape(str(folder))}/*/seed-*"])


def load_runs(folders: Iterable[Path]) -> list[Run]:
    """Return the runs of finished run folders. Raises UserError if a run.json is damaged."""
    return [
        Run(
            folder,
            RunInfo.read(folder),
            pd.read_parquet(folder / "predictions.parquet", columns=PREDICTION_COLUMNS),
            pd.read_parquet(folder / RESULTS_FILE),
        )
        for folder in folders
    ]


def by_name(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """Group runs that differ only in their seed, by the name that they are compared under; both are sorted.

    Runs in one parent folder are a group. Its name is the run's name. If groups of several experiments have the same
    name, the parent folders are part of the name, as far as they differ, so that runs of different experiments are
    never taken for seeds of one.
    """
    groups: dict[Path, list[Run]] = {}
    for run in sorted(runs, key=lambda run: run.info.seed):
        groups.setdefault(run.folder.resolve().parent, []).append(run)
    names = [group[0].info.name for group in groups.values()]
    common = os.path.commonpath([folder.parent for folder in groups])
    named = {}
    for folder, group in groups.items():
        name = group[0].info.name
        named[name if names.count(name) == 1 else folder.relative_to(common).as_posix()] = group
    return dict(sorted(named.items()))
