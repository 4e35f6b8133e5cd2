"""The folds of a cross-validation as one run: each row is predicted by the model that saw nothing of its group."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..config.schema import Config
from ..data.rows import read_rows
from ..errors import UserError
from ..runtime.atomic_io import write_parquet, write_text
from .results import results_table
from .run_status import RESULTS_FILE, RUN_JSON

SPENT = ("steps", "forward_samples", "epochs", "seconds", "llm", "near_copies")
"""What run.json counts."""


def pool_folds(config: Config, folders: list[Path], folder: Path) -> None:
    """Writes predictions.parquet, run.json and results.parquet of all folds' test rows into `folder`.

    `config` is that of the first fold. What was spent is the sum over the folds, `constant` the mean or the most
    frequent of theirs, all other numbers are means. Raises UserError where the folds differ in their classes.
    """
    infos = [json.loads((part / RUN_JSON).read_text(encoding="utf-8")) for part in folders]
    predictions = pd.concat([pd.read_parquet(part / "predictions.parquet") for part in folders], ignore_index=True)
    if any(info["classes"] != infos[0]["classes"] for info in infos):
        raise UserError(
            f"{folder}: the training rows of the folds have different classes, so they are not one run; "
            "take fewer folds"
        )
    constants = [info["constant"] for info in infos]
    number = infos[0]["task"] == "number"
    constant = float(np.mean(constants)) if number else max(constants, key=constants.count)
    target = replace(read_rows(config.data).target, constant=constant)
    results = results_table(
        predictions,
        method=config.name,
        data=config.data.name,
        seed=config.seed,
        target=target,
        resamples=config.robustness.resamples,
    )
    spent = {key: _together([info[key] for info in infos], sum) for key in SPENT if key in infos[0]}
    mean = {key: _together([info[key] for info in infos], np.mean) for key in ("val", "empty_texts") if key in infos[0]}
    rows = {
        "train": round(np.mean([info["rows"]["train"] for info in infos])),
        "val": round(np.mean([info["rows"]["val"] for info in infos])),
        "test": predictions["record"].nunique(),
    }
    info = {**infos[0], **spent, **mean, "constant": constant, "folds": len(folders), "rows": rows}
    folder.mkdir(parents=True, exist_ok=True)
    write_parquet(predictions, folder / "predictions.parquet")
    write_text(folder / RUN_JSON, json.dumps(info, indent=2, ensure_ascii=False) + "\n")
    write_parquet(results, folder / RESULTS_FILE)


def _together(values: list, how: Callable[[list], float]) -> Any:
    """One value of several alike: numbers as `how` says, nested ones too, anything else as in the first."""
    first = values[0]
    if isinstance(first, dict):
        keys = dict.fromkeys(key for value in values for key in value)
        return {key: _together([value[key] for value in values if key in value], how) for key in keys}
    return type(first)(how(values)) if isinstance(first, int | float) else first
