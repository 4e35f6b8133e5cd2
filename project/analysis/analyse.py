"""Measure the texts that finished runs saved; the report shows the tables."""

import glob
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pandas as pd
from rich.console import Console

from ..config.compose import check_complete, run_config
from ..config.schema import Config
from ..data.rows import read_rows
from ..errors import UserError
from ..evaluation.run_info import RunInfo
from ..evaluation.run_loading import experiment_runs, load_runs
from ..pipeline.text_log import TEXTS_FILE
from ..runtime.atomic_io import write_parquet
from ..runtime.progress import progress_bar
from .collapse import Embedder, collapse_table
from .expert_information_loss import clean_texts, transformation_table
from .perturbation_quality import diversity_table
from .recovery import recovery_table


def analyse(config: Config, patterns: Sequence[str] = ()) -> dict[Path, int]:
    """Measure the texts of finished runs and return the number of rows of each table by its path.

    `patterns` are run folders or globs of them; without one, the first seed of each run of the experiment is measured.
    Each run folder gets transformation.parquet, collapse.parquet, recovery.parquet and, if texts were perturbed,
    diversity.parquet. The first needs the run's data; if they are missing, a message is printed instead. All runs are
    embedded by config.model.encoder, so that their numbers are comparable. Raises UserError if the model has no
    encoder, or if no run has logged its texts.
    """
    check_complete(config)
    if not hasattr(config.model, "encoder"):
        raise UserError(f"a model of kind {config.model.kind} has no encoder to embed texts with; give model=minilm")
    console = Console()
    folders = resolve_run_folders(list(patterns)) if patterns else _of_experiment(config)
    embedder, transformations = Embedder(config.model), Transformations(config.robustness.resamples)
    rows_by_path = {}
    for folder in folders:
        texts = pd.read_parquet(folder / TEXTS_FILE)
        metric = RunInfo.read(folder).metric
        with progress_bar() as bar:
            watch = partial(bar.update, bar.add_task(str(folder), total=None))
            tables = {
                "transformation": transformations.of(folder, texts, console),
                "collapse": collapse_table(texts, embedder, metric, config.robustness.resamples, watch),
                "recovery": recovery_table(texts, config.robustness.resamples),
                "diversity": diversity_table(texts, metric, config.robustness.resamples),
            }
        for name, table in tables.items():
            if table is not None:
                path = folder / f"{name}.parquet"
                write_parquet(table, path)
                rows_by_path[path] = len(table)
    return rows_by_path


class Transformations:
    """The information loss of the experts, computed once for all runs with equal data and equal descriptions."""

    def __init__(self, resamples: int):
        self.resamples = resamples
        self._tables: dict[str, pd.DataFrame] = {}

    def of(self, folder: Path, texts: pd.DataFrame, console: Console) -> pd.DataFrame | None:
        """Return the table of one run; print why and return None if its data are missing or have changed."""
        clean = clean_texts(texts)
        try:
            data = run_config(folder).data
            key = repr((data, clean["record"].tolist(), clean["described"].tolist()))
            if key not in self._tables:
                self._tables[key] = transformation_table(texts, read_rows(data), self.resamples)
            return self._tables[key]
        except UserError as error:
            console.print(
                f"{folder}: the information loss of the experts is not measured: {error}",
                highlight=False,
                soft_wrap=True,
            )
            return None


def resolve_run_folders(words: list[str]) -> list[Path]:
    """Return the run folders with texts that match the paths or patterns. Raises UserError if one matches none."""
    folders = {}
    for word in words:
        matches = sorted(Path(path) for path in glob.glob(word, recursive=True) if (Path(path) / TEXTS_FILE).is_file())
        if not matches:
            raise UserError(
                f"analyse {word}: no run folder with {TEXTS_FILE} matches; only methods that read texts write it, and "
                "python -m project evaluate run=<folder> adds it to an older run"
            )
        folders |= dict.fromkeys(matches)
    return list(folders)


def _of_experiment(config: Config) -> list[Path]:
    """Return one run per name, the first seed with texts, since all seeds have the same texts."""
    experiment = Path(config.output) / config.experiment
    first: dict[str, Path] = {}
    for finished in load_runs(experiment_runs(experiment)):
        if (finished.folder / TEXTS_FILE).is_file():
            first.setdefault(finished.info.name, finished.folder)
    if not first:
        raise UserError(
            f"no run in {experiment} has {TEXTS_FILE}; only methods that read texts write it, and "
            "python -m project evaluate run=<folder> adds it to an older run"
        )
    return list(first.values())
