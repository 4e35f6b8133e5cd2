"""Finished runs, read from their folders and named."""

import glob
import json
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ..errors import UserError

log = logging.getLogger(__name__)

FILES = ("run.json", "predictions.parquet", "results.parquet")
"""What a run folder holds once its evaluation is finished."""


@dataclass(frozen=True)
class Run:
    """One finished run: `info` is run.json, of which only method, name, data and seed are sure to be there.

    `predictions` are without their probabilities, which take most of the room.
    """

    folder: Path
    info: dict
    predictions: pd.DataFrame
    results: pd.DataFrame

    def probabilities(self, conditions: list[str]) -> pd.DataFrame:
        """Condition, record, target and probabilities of the rows under some conditions, read anew."""
        return pd.read_parquet(
            self.folder / "predictions.parquet",
            filters=[("condition", "in", conditions)],
            columns=["condition", "record", "target", "probabilities"],
        )


def run_folders(patterns: Iterable[str | Path]) -> list[Path]:
    """The folders that paths and globs name (** is any number of folders), each once, sorted.

    Of a glob only the finished runs are taken, and what is not finished is logged. Raises UserError where a pattern
    names no finished run.
    """
    folders = {}
    for pattern in map(str, patterns):
        found = [Path(path) for path in glob.glob(pattern, recursive=True) if os.path.isdir(path)]
        lacking = {folder: [name for name in FILES if not (folder / name).is_file()] for folder in found}
        finished = [folder for folder in found if not lacking[folder]]
        if not finished:
            raise UserError(
                f"no finished run in {pattern}; make one with python -m project train, or name others, "
                "such as 'outputs/**/seed-*'"
            )
        for folder in sorted(set(found) - set(finished)):
            log.warning("%s is left out: it has no %s", folder, ", ".join(lacking[folder]))
        for folder in finished:
            folders.setdefault(folder.resolve(), folder)
    return sorted(folders.values())


def experiment_runs(folder: Path) -> list[Path]:
    """The finished runs of an experiment's folder. Raises UserError where there is none."""
    return run_folders([f"{glob.escape(str(folder))}/*/seed-*"])


def load_runs(folders: Iterable[Path]) -> list[Run]:
    """The runs of finished run folders. Raises UserError where a run.json cannot be read."""
    return [_load(folder) for folder in folders]


def _load(folder: Path) -> Run:
    try:
        info = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        info["method"], info["name"], info["data"], info["seed"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{folder}/run.json is damaged ({error}); write it again with python -m project evaluate"
        ) from error
    columns = [
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
    return Run(
        folder,
        info,
        pd.read_parquet(folder / "predictions.parquet", columns=columns),
        pd.read_parquet(folder / "results.parquet"),
    )


def by_name(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """The runs that differ in nothing but their seed, by the name that they are compared under, both sorted.

    Those are the runs in one folder. Its name is the run's, with the folders above it, as far as these differ, where
    two folders have runs of one name: runs of different experiments are never taken for seeds of one.
    """
    folders: dict[Path, list[Run]] = {}
    for run in sorted(runs, key=lambda run: run.info["seed"]):
        folders.setdefault(run.folder.resolve().parent, []).append(run)
    names = [same[0].info["name"] for same in folders.values()]
    shared = os.path.commonpath([folder.parent for folder in folders])
    named = {}
    for folder, same in folders.items():
        name = same[0].info["name"]
        named[name if names.count(name) == 1 else folder.relative_to(shared).as_posix()] = same
    return dict(sorted(named.items()))
