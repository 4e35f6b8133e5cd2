"""Log a run to W&B: configuration, curves, scores by condition, perturbed samples and cost."""

import hashlib
import os
import re
from dataclasses import asdict
from pathlib import Path

import pandas as pd
from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger

from ..config.run_identity import run_folder
from ..config.schema import Config
from ..data.rows import Rows
from ..errors import UserError
from ..pipeline.alignment import join_parts
from ..pipeline.pipeline import Pipeline
from .run_info import RunInfo

ARTIFACT = "run"
"""Type of the artifact with the FILES of a finished run."""
FILES = ("config.yaml", "run.json", "predictions.parquet", "results.parquet", "texts.parquet")
SAMPLES = 20
"""Number of training rows whose perturbed texts are logged."""


def start_logger(config: Config, folder: Path) -> Logger | None:
    """Return the logger that config.logger names: W&B, CSV, or None.

    The W&B id follows from the run folder, so that a resumed run keeps its id; an agent of a W&B sweep sets the id
    itself, and waits for the scores on its server. Each start of a run writes another version of the CSV file.
    """
    if config.logger == "csv":
        return CSVLogger(folder, name="csv", flush_logs_every_n_steps=1)
    if config.logger == "none" or config.wandb.mode == "disabled":
        return None
    agent = "WANDB_SWEEP_ID" in os.environ
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("WANDB_SILENT", "true")  # the verb prints the run folder
    return WandbLogger(
        project=config.wandb.project,
        entity=config.wandb.entity,
        save_dir=folder,
        save_code=False,
        mode=os.environ.get("WANDB_MODE", "online") if agent else config.wandb.mode,
        id=os.environ.get("WANDB_RUN_ID") if agent else hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16],
        name=f"{config.name}-seed-{config.seed}",
        group=config.wandb.group or config.experiment,
        job_type="train",
        config=asdict(config),
    )


def finish(
    logger: Logger | None, config: Config, results: pd.DataFrame, pipeline: Pipeline, rows: Rows, info: RunInfo
) -> None:
    """Log the results of the evaluation to W&B, and close the run."""
    if not isinstance(logger, WandbLogger):
        return
    import wandb

    run = logger.experiment
    run.summary.update(summary(results, info.metric))
    run.summary.update({f"cost/{key}": value for key, value in info.llm.items() if isinstance(value, int | float)})
    run.summary.update({f"cost/{key}_seconds": value for key, value in info.seconds.items()})
    run.log({"robustness/results": wandb.Table(dataframe=results), **_curves(results, info.metric)})
    if config.perturbation.kind != "none" and config.perturbation.weight:
        traces = pipeline.perturbed(pipeline.clean(rows.train[:SAMPLES]), 0)
        samples = [[trace.record.id, join_parts(trace.aligned.parts), join_parts(trace.parts)] for trace in traces]
        run.log({"perturbation/samples": wandb.Table(columns=["record", "aligned", "perturbed"], data=samples)})
    artifact = wandb.Artifact(f"run-{run.id}", type=ARTIFACT)
    for path in map(run_folder(config).joinpath, FILES):
        if path.is_file():
            artifact.add_file(str(path))
    run.log_artifact(artifact)
    run.finish()


def close(logger: Logger | None) -> None:
    """Close a run that is not evaluated."""
    if isinstance(logger, WandbLogger):
        logger.experiment.finish()


def download(project: str, group: str, into: str) -> str:
    """Download the files of a W&B group's finished runs to run folders under `into`; return a glob of the folders.

    `project` is entity/project. A run's name becomes a folder name, never a path outside `into`. Raises UserError if
    the group has no finished run.
    """
    import wandb

    count = 0
    for run in wandb.Api().runs(project, filters={"group": group}):
        name = re.sub(r"[^\w.@-]|^\.", "-", str(run.config.get("name")))
        for artifact in run.logged_artifacts():
            if artifact.type == ARTIFACT:
                artifact.download(root=str(Path(into) / name / f"seed-{int(run.config.get('seed', 0))}"))
                count += 1
    if not count:
        raise UserError(f"{project} has no finished run in the group {group}")
    return f"{into}/*/seed-*"


def summary(results: pd.DataFrame, metric: str) -> dict[str, float]:
    """Return scores and drop ratios by flat names, such as test/accuracy/clean or test/drop_ratio/noisy/image/0.3."""
    flat = {}
    for row in results[results["metric"].isin([metric, "drop_ratio"])].itertuples():
        where = {
            "clean": "clean",
            "noisy": f"noisy/{row.modality}/{row.level:g}",
            "missing": f"missing/{row.modality}",
            "order": f"order/{row.order}",
            "natural": f"natural/{row.corruption}/{row.level:g}",
            "genuine": f"genuine/{row.modality}",
            "attack": "attack",
        }[row.condition]
        flat[f"test/{row.metric}/{where}"] = float(row.value)
    return flat


def _curves(results: pd.DataFrame, metric: str) -> dict:
    """Return a plot of the score against the noise level, one line per modality."""
    import wandb

    points = results[results["metric"] == metric]
    clean = float(points.loc[points["condition"] == "clean", "value"].iloc[0])
    noisy = points[points["condition"] == "noisy"].sort_values("level")
    if noisy.empty:
        return {}
    lines = {modality: rows for modality, rows in noisy.groupby("modality")}
    levels = [[0.0, *rows["level"].tolist()] for rows in lines.values()]
    values = [[clean, *rows["value"].tolist()] for rows in lines.values()]
    return {
        "robustness/curves": wandb.plot.line_series(levels, values, keys=list(lines), xname="noise level", title=metric)
    }
