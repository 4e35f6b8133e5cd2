"""evaluate: a finished run under every condition; predictions first, results derived from them."""

import json
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from rich.console import Console

from .config import require
from .corrupt import corrupt
from .llm import open_llm
from .methods import Prediction, method_of
from .pipeline import Pipeline, open_pipeline
from .progress import progress
from .record import Record
from .robustness.conditions import Condition, test_conditions
from .robustness.results import results_table
from .run_folder import run_folder
from .schema import Config
from .sources import Rows, read_rows

PACKAGES = ("torch", "lightning", "transformers", "peft", "omegaconf", "numpy", "pandas")


def run(config: Config, args: dict[str, str]) -> None:
    """Evaluate a trained run again and write its results anew."""
    require(config)
    folder = Path(args["run"]) if "run" in args else run_folder(config)
    rows = read_rows(config.data)
    llm = open_llm(config)
    known = folder / "run.json"
    fitted = json.loads(known.read_text(encoding="utf-8")) if known.is_file() else {}
    with llm.store:
        pipeline = open_pipeline(config, rows, llm)
        evaluate_run(config, folder, pipeline, rows, fitted)
    Console().print(f"evaluated {folder}", highlight=False)


def evaluate_run(config: Config, folder: Path, pipeline: Pipeline, rows: Rows, fitted: dict) -> pd.DataFrame:
    """Predict the test rows under every condition; writes predictions.parquet, run.json and results.parquet, last.

    Returns the results. `fitted` is what the training said of itself, for run.json.
    """
    start = time.perf_counter()
    predictor = method_of(config).load(config, folder, pipeline, rows)
    tables, empty = [], {}
    conditions = test_conditions(config.robustness, rows.modalities)
    with progress() as bar:
        task = bar.add_task("conditions", total=len(conditions))
        for condition in conditions:
            empty[str(condition)] = float(np.mean([not corrupt(record, condition).text for record in rows.test]))
            tables.append(_predictions(rows.test, condition, predictor(rows.test, condition)))
            bar.advance(task)
    predictions = pd.concat(tables, ignore_index=True)
    results = results_table(
        predictions, method=config.name, data=config.data.name, seed=config.seed, target=rows.target,
        resamples=config.robustness.resamples)
    info = {
        **fitted, "method": config.method, "name": config.name, "data": config.data.name, "seed": config.seed,
        "task": rows.target.kind, "metric": rows.target.metric, "classes": list(rows.target.classes),
        "constant": rows.target.constant, "modalities": list(rows.modalities), "perturbation": config.perturbation.kind,
        "rows": {"train": len(rows.train), "val": len(rows.val), "test": len(rows.test)},
        "llm": pipeline.llm.usage.summary(pipeline.llm.name), "empty_texts": empty,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "git": revision(), "hardware": hardware(), "wandb": str(folder / "wandb"),
    }
    info["seconds"] = {**fitted.get("seconds", {}), "evaluate": round(time.perf_counter() - start, 1)}
    write_parquet(predictions, folder / "predictions.parquet")
    (folder / "run.json").write_text(json.dumps(info, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    write_parquet(results, folder / "results.parquet")
    return results


def _predictions(records: list[Record], condition: Condition, prediction: Prediction) -> pd.DataFrame:
    """One row a record, in the columns of predictions.parquet."""
    probabilities = prediction.probabilities
    return pd.DataFrame({
        "record": [record.id for record in records],
        "group": [record.group for record in records],
        "condition": str(condition),
        "kind": condition.kind,
        "modality": condition.modality,
        "level": condition.level,
        "order": ",".join(condition.order),
        "target": [record.target for record in records],
        "prediction": prediction.answers,
        "probabilities": [None] * len(records) if probabilities is None else list(probabilities),
    })


def write_parquet(table: pd.DataFrame, path: Path) -> None:
    """Write a table whole or not at all."""
    aside = path.with_suffix(".part")
    table.to_parquet(aside, index=False)
    os.replace(aside, path)


def revision() -> str | None:
    """The git revision of the code, with + where it has uncommitted changes; None outside a checkout."""
    try:
        told = subprocess.run(["git", "describe", "--always", "--dirty=+"], cwd=Path(__file__).parent,
                              capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return told.stdout.strip()


def hardware() -> str:
    """What the run ran on, in words."""
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    return f"{cores} {platform.machine()} cores, no GPU"
