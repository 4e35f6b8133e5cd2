"""Answer for the rows of a file with a trained run."""

import json
import logging
from pathlib import Path

import pandas as pd
import pyarrow as pa

from ..config.schema import Config
from ..data.inference_inputs import check_columns
from ..data.tabular_io import SEPARATORS, read_frame
from ..errors import UserError
from ..runtime.atomic_io import atomic_path, write_parquet
from ..runtime.progress import progress_bar
from .trained_run import TrainedRun

log = logging.getLogger(__name__)

ENDINGS = (".parquet", *SEPARATORS)
"""Endings of the output file."""


def predict(config: Config, folder: Path, source: Path, output: Path) -> pd.DataFrame:
    """Answer for the rows of the file `source`, write them with their answers to `output`, and return that table.

    `config` is the configuration of the run in `folder`. The columns of the answers are those of TrainedRun; an input
    column of the same name is renamed to input_<name>. A row that is wrong gets a `problem` in place of an answer.
    Raises UserError if a file as a whole is wrong, or if the output exists.
    """
    if not output.name.lower().endswith(ENDINGS):
        raise UserError(f"output={output}: unknown ending; give {', '.join(ENDINGS)}")
    if output.exists():
        raise UserError(f"output={output} is there already; delete it, or give another name")
    frame = read_frame(source, verbatim=True, key="input")
    with TrainedRun(config, folder) as run:
        check_columns(list(frame.columns), run.columns, str(source))
        inputs = run.rename_conflicts(frame, str(source))  # raises before any row is computed
        if renamed := [name for name in inputs if name not in frame]:
            log.warning("%s: renamed to %s, since answers have these names", source, ", ".join(renamed))
        batches = []
        with progress_bar() as bar:
            task = bar.add_task("rows", total=len(frame))
            for batch in run.answers(frame, source.parent):
                batches.append(batch)
                bar.advance(task, len(batch))
    table = pd.concat([inputs, pd.concat(batches, ignore_index=True)], axis=1)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        _write(table, output)
    except OSError as error:
        raise UserError(f"cannot write {output}: {error.strerror or error}") from error
    return table


def _write(table: pd.DataFrame, output: Path) -> None:
    """Write a table atomically, in the format of the file's ending."""
    ending = next(ending for ending in ENDINGS if output.name.lower().endswith(ending))
    if ending == ".parquet":
        write_parquet(table.assign(**{name: _parquet_column(table[name]) for name in table}), output)
        return
    with atomic_path(output) as part:
        table.to_csv(part, index=False, sep=SEPARATORS[ending], compression="gzip" if ending.endswith("gz") else None)


def _parquet_column(column: pd.Series) -> pd.Series:
    """Return the column unchanged, or each cell as JSON if the cells have no common Parquet type."""
    try:
        pa.array(column, from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return column.map(
            lambda value: (
                None
                if pd.api.types.is_scalar(value) and pd.isna(value)
                else json.dumps(value, ensure_ascii=False, default=str)
            )
        )
    return column
