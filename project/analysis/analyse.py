"""Measure the texts that finished runs saved; the report shows the tables."""

import glob
import json
from functools import partial
from pathlib import Path

import pandas as pd
from rich.console import Console

from ..config.compose import check_complete, run_config
from ..config.schema import Config
from ..data.rows import read_rows
from ..errors import UserError
from ..evaluation.run_loading import experiment_runs, load_runs
from ..evaluation.run_status import RUN_JSON
from ..pipeline.text_log import FILE
from ..runtime.atomic_io import write_parquet
from ..runtime.progress import progress_bar
from .collapse import Embedder, collapse_table
from .expert_information_loss import clean_texts, transformation_table
from .perturbation_quality import diversity_table
from .recovery import recovery_table


def run(config: Config, args: dict) -> None:
    """Write transformation.parquet, collapse.parquet, recovery.parquet and, of perturbed texts, diversity.parquet.

    They go into each run folder; the first needs the run's own data, and where these are gone it is left out with a
    word. All runs are embedded by the encoder of this verb's own model.encoder, so that their numbers compare. Raises
    UserError where the model has none, or where no run has kept its texts.
    """
    check_complete(config)
    if not hasattr(config.model, "encoder"):
        raise UserError(f"a model of kind {config.model.kind} has no encoder to embed texts with; give model=minilm")
    console = Console()
    folders = resolve_run_folders(args["words"]) if "words" in args else _of_experiment(config)
    embedder, transformations = Embedder(config.model), Transformations(config.robustness.resamples)
    for folder in folders:
        texts = pd.read_parquet(folder / FILE)
        metric = json.loads((folder / RUN_JSON).read_text(encoding="utf-8"))["metric"]
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
                write_parquet(table, folder / f"{name}.parquet")
                console.print(f"{len(table):>6} rows in {folder / name}.parquet", highlight=False, soft_wrap=True)


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
        matches = sorted(Path(path) for path in glob.glob(word, recursive=True) if (Path(path) / FILE).is_file())
        if not matches:
            raise UserError(
                f"analyse {word}: no run folder with {FILE} matches; only methods that read texts write it, and "
                "python -m project evaluate run=<folder> adds it to an older run"
            )
        folders |= dict.fromkeys(matches)
    return list(folders)


def _of_experiment(config: Config) -> list[Path]:
    """Return one run per name, the first seed with texts, since all seeds have the same texts."""
    experiment = Path(config.output) / config.experiment
    first: dict[str, Path] = {}
    for finished in load_runs(experiment_runs(experiment)):
        if (finished.folder / FILE).is_file():
            first.setdefault(finished.info["name"], finished.folder)
    if not first:
        raise UserError(
            f"no run in {experiment} has {FILE}; only methods that read texts write it, and "
            "python -m project evaluate run=<folder> adds it to an older run"
        )
    return list(first.values())
