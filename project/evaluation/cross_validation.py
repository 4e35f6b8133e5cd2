"""Pool the folds of a cross-validation to one run, in which each row has an out-of-fold prediction."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..config.schema import Config
from ..data.rows import read_rows
from ..errors import UserError
from ..runtime.atomic_io import write_parquet
from .results import results_table
from .run_info import RunInfo
from .run_status import RESULTS_FILE

SUMMED = ("steps", "forward_samples", "epochs", "seconds", "llm", "near_copies")
"""Fields of run.json that are summed over the folds."""
AVERAGED = ("val", "empty_texts")
"""Fields of run.json that are averaged over the folds."""


def pool_folds(config: Config, folders: list[Path], folder: Path) -> None:
    """Write predictions.parquet, run.json and results.parquet of the test rows of all folds into `folder`.

    `config` is the configuration of the first fold. Costs are sums over the folds, the constant is the mean or the
    most frequent one, and other numbers are means. Raises UserError if the folds differ in their classes.
    """
    infos = [RunInfo.read(fold) for fold in folders]
    predictions = pd.concat([pd.read_parquet(fold / "predictions.parquet") for fold in folders], ignore_index=True)
    if any(info.classes != infos[0].classes for info in infos):
        raise UserError(
            f"{folder}: the training rows of the folds have different classes, so they are not one run; "
            "take fewer folds"
        )
    constants = [info.constant for info in infos]
    constant = float(np.mean(constants)) if infos[0].task == "number" else max(constants, key=constants.count)
    target = replace(read_rows(config.data).target, constant=constant)
    results = results_table(
        predictions,
        method=config.name,
        data=config.data.name,
        seed=config.seed,
        target=target,
        resamples=config.robustness.resamples,
    )
    contents = [info.to_dict() for info in infos]
    pooled = dict(contents[0])
    for keys, reduce in ((SUMMED, sum), (AVERAGED, np.mean)):
        pooled |= {key: _reduce([content[key] for content in contents], reduce) for key in keys if key in pooled}
    rows = {
        "train": round(np.mean([info.rows["train"] for info in infos])),
        "val": round(np.mean([info.rows["val"] for info in infos])),
        "test": predictions["record"].nunique(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_parquet(predictions, folder / "predictions.parquet")
    RunInfo.from_dict(pooled | {"constant": constant, "folds": len(folders), "rows": rows}).write(folder)
    write_parquet(results, folder / RESULTS_FILE)


def _reduce(values: list, reduce: Callable[[list], float]) -> Any:
    """Reduce numbers to one, also those in nested dicts; other values are taken from the first."""
    first = values[0]
    if isinstance(first, dict):
        keys = dict.fromkeys(key for value in values for key in value)
        return {key: _reduce([value[key] for value in values if key in value], reduce) for key in keys}
    return type(first)(reduce(values)) if isinstance(first, int | float) else first
