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
from transformers import PreTrainedTokenizerBase

from . import head
from .config import require
from .errors import UserError
from .llm import open_llm
from .module import base_model, load_tokenizer, with_adapter
from .pipeline import Pipeline, Trace, compose, open_pipeline
from .progress import progress
from .robustness.conditions import Condition, test_conditions
from .robustness.results import results_table
from .run_folder import run_folder
from .schema import Config
from .sources import Rows, read_rows
from .target import Target
from .tokenize import encode, pad

PACKAGES = ("torch", "lightning", "transformers", "peft", "omegaconf", "numpy", "pandas")


def run(config: Config, args: dict[str, str]) -> None:
    """Evaluate a trained run again and write its results anew."""
    require(config)
    folder = Path(args["run"]) if "run" in args else run_folder(config)
    if not (folder / "adapter").is_dir():
        raise UserError(f"{folder} holds no trained model; train it first: python -m project train "
                        f"experiment={config.experiment} method={config.method} seed={config.seed}")
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
    tokenizer = load_tokenizer(config.model)
    model = with_adapter(base_model(config.model, rows.target, config.seed), folder / "adapter")
    model.to("cuda" if torch.cuda.is_available() and config.trainer.accelerator != "cpu" else "cpu")
    tables, empty = [], {}
    conditions = test_conditions(config.robustness, rows.modalities)
    with progress() as bar:
        task = bar.add_task("conditions", total=len(conditions))
        for condition in conditions:
            traces = pipeline.inferred(rows.test, condition)
            empty[str(condition)] = float(np.mean([not trace.corrupted.text for trace in traces]))
            logits = predict(model, tokenizer, traces, config)
            tables.append(_predictions(traces, condition, logits, rows.target, config.model.head))
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
    _write_parquet(predictions, folder / "predictions.parquet")
    (folder / "run.json").write_text(json.dumps(info, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    _write_parquet(results, folder / "results.parquet")
    return results


@torch.inference_mode()
def predict(model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, traces: list[Trace],
            config: Config) -> torch.Tensor:
    """Logits, shape (rows, width of the head), in the order of the traces."""
    encodings = encode([compose(trace.parts) for trace in traces], tokenizer, config.model.max_tokens)
    order = sorted(range(len(encodings)), key=lambda index: len(encodings[index]["input_ids"]))
    found = {}
    size = 4 * config.trainer.batch_size
    for start in range(0, len(order), size):
        indices = order[start : start + size]
        batch = pad([encodings[index] for index in indices], tokenizer)
        logits = model(**{name: value.to(model.device) for name, value in batch.items()}).logits
        found.update(zip(indices, logits.float().cpu(), strict=True))
    return torch.stack([found[index] for index in range(len(encodings))])


def _predictions(traces: list[Trace], condition: Condition, logits: torch.Tensor, target: Target,
                 kind_of_head: str) -> pd.DataFrame:
    """One row a record, in the columns of predictions.parquet; a number has no probabilities."""
    probabilities = head.probabilities(logits, target, kind_of_head)
    return pd.DataFrame({
        "record": [trace.record.id for trace in traces],
        "group": [trace.record.group for trace in traces],
        "condition": str(condition),
        "kind": condition.kind,
        "modality": condition.modality,
        "level": condition.level,
        "order": ",".join(condition.order),
        "target": [trace.record.target for trace in traces],
        "prediction": head.answers(logits, target, kind_of_head),
        "probabilities": [None] * len(traces) if probabilities is None else list(probabilities),
    })


def _write_parquet(table: pd.DataFrame, path: Path) -> None:
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
