"""Log the tables and figures of a report to W&B."""

import os
from pathlib import Path

import pandas as pd

from ..config.schema import Config
from ..evaluation.comparison import Comparison
from ..evaluation.curves import curves


def log_report(config: Config, folder: Path, comparisons: list[Comparison]) -> None:
    """Log the CSV files as tables and the curves as line plots to a new W&B run; do nothing if W&B is disabled."""
    if config.wandb.mode == "disabled":
        return
    import wandb

    os.environ.setdefault("WANDB_SILENT", "true")
    run = wandb.init(
        project=config.wandb.project,
        entity=config.wandb.entity,
        mode=config.wandb.mode,
        dir=folder,
        name=f"report of {config.experiment}",
        group=config.experiment,
        job_type="report",
    )
    logged: dict = {
        f"report/{path.stem}": wandb.Table(dataframe=pd.read_csv(path), allow_mixed_types=True)
        for path in sorted(folder.glob("*.csv"))
    }
    for comparison in comparisons:
        for curve in curves(comparison):
            values = [[comparison.value(method, [name]).value for name in curve.names] for method in comparison.methods]
            name = f"{curve.corruption}/{curve.modality}" if curve.corruption else curve.modality
            logged[f"report/{comparison.data}/{name}"] = wandb.plot.line_series(
                [curve.levels] * len(values),
                values,
                keys=comparison.methods,
                xname=f"{curve.sort} level",
                title=f"{comparison.data}: {comparison.metric}, {curve.sort} on {curve.modality}",
            )
    run.log(logged)
    run.finish()
