"""The verb `predict`, and load_run: a trained run answers for new rows, by the text path of its training."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd
from rich.console import Console

from .alignment import joined
from .config import run_config
from .errors import UserError
from .llm import open_llm
from .methods import Prediction, method_of
from .pipeline import open_pipeline
from .progress import progress
from .record import Record
from .robustness.conditions import CLEAN
from .schema import Config, Data, TableData
from .sources import Rows, read_rows
from .sources.frames import SEPARATORS, read_frame
from .sources.table import as_records

BATCH = 256
"""Rows that are described, aligned and scored at once."""

def run(config: Config, args: dict[str, str]) -> None:
    """Answer for the rows of the file `input`, in their order, and write them with the answers to `output`.

    Raises UserError where a file is wrong as a whole; a row that is wrong is written with its `problem`.
    """
    for key in ("run", "input", "output"):
        if key not in args:
            raise UserError(f"predict: {key} is not given; python -m project predict run=<folder> input=rows.csv "
                            "output=predictions.parquet")
    source, output = Path(args["input"]).expanduser(), Path(args["output"]).expanduser()
    ending = next((ending for ending in (".parquet", *SEPARATORS) if output.name.endswith(ending)), None)
    if ending is None:
        raise UserError(f"output={output}: unknown ending; give {', '.join(('.parquet', *SEPARATORS))}")
    if output.exists():
        raise UserError(f"output={output} is there already; delete it, or give another name")
    with TrainedRun(config, Path(args["run"])) as trained:
        columns = trained.columns
        frame = read_frame(source, {*columns.text, columns.image} - {None}, columns.table)
        found = trained.answers(frame, source)
    output.parent.mkdir(parents=True, exist_ok=True)
    aside = output.with_name(f"{output.name}.part")
    if ending == ".parquet":
        found.to_parquet(aside, index=False)
    else:
        found.to_csv(aside, index=False, sep=SEPARATORS[ending], compression="gzip" if ending.endswith("gz") else None)
    os.replace(aside, output)
    failed = int(found["problem"].notna().sum())
    told = f", {failed} of which have no answer but a problem" if failed else ""
    Console().print(f"{len(found)} rows{told}: {output}", highlight=False)


def load_run(folder: str | Path, *settings: str) -> "TrainedRun":
    """A trained run that answers for new rows: `predictor = load_run(path); predictor(rows)`.

    `settings` are key=value as on the command line: those of the environment, such as store.path, and another option
    of llm with its keys. The run's own data must be where its configuration says. Raises UserError.
    """
    return TrainedRun(run_config(folder, settings), Path(folder))


class TrainedRun:
    """A run's method, loaded once. New generations are in the store at once; `close`, or `with`, seals its journal."""

    def __init__(self, config: Config, folder: Path):
        self.config, self.rows, llm = config, read_rows(config.data), open_llm(config)
        self._store = llm.store
        pipeline = open_pipeline(config, self.rows, llm)
        self._predictor = method_of(config).load(config, folder, pipeline, self.rows)
        self.columns = input_columns(config.data, self.rows)

    def __call__(self, rows: pd.DataFrame | Sequence[Record | Mapping]) -> pd.DataFrame:
        """A row of answers for each record, mapping or row of a frame, in their order.

        Mappings and frames have the columns of the run's data; image paths are relative to the current folder. The
        frame has `prediction`, for classes `p_<class>` of each, and of a method that reads texts `aligned` and the
        language model's own `explanation`; `problem` says why a row has no answer.
        """
        if isinstance(rows, pd.DataFrame):
            return self.answers(rows, Path("rows"))
        if all(isinstance(row, Record) for row in rows):
            return self._table(list(rows), [None if row.present else "nothing in any modality" for row in rows])
        return self.answers(pd.DataFrame([{name: row.get(name) for name in self._named()} | dict(row) for row in rows],
                                         dtype=object), Path("rows"))

    def answers(self, frame: pd.DataFrame, path: Path) -> pd.DataFrame:
        """The frame, which was read from `path`, with the answers beside its columns."""
        records, problems = as_records(frame, self.columns, path)
        found = self._table(records, problems)
        taken = [column for column in found if column in frame.columns]
        if taken:
            raise UserError(f"{path}: the column {taken[0]!r} has the name of an answer; rename it")
        return pd.concat([frame.reset_index(drop=True), found], axis=1)

    def close(self) -> None:
        """Seal what was generated into a shard of the store; the run can still be asked."""
        self._store.close()

    def __enter__(self) -> "TrainedRun":
        return self

    def __exit__(self, *error) -> None:
        self._store.__exit__(*error)

    def _named(self) -> list[str]:
        columns = self.columns
        return [*([columns.image] if columns.image else []), *columns.text, *columns.table]

    def _table(self, records: list[Record], problems: list[str | None]) -> pd.DataFrame:
        """The answers for the records without a problem; empty cells for the others."""
        asked = [index for index, problem in enumerate(problems) if problem is None]
        parts = []
        with progress() as bar:
            task = bar.add_task("rows", total=len(asked))
            for start in range(0, len(asked), BATCH):
                indices = asked[start : start + BATCH]
                found = self._predictor([records[index] for index in indices], CLEAN)
                parts.append(_answers(found, self.rows.target.classes).set_index(pd.Index(indices)))
                bar.advance(task, len(indices))
        table = pd.concat(parts) if parts else pd.DataFrame(columns=["prediction"])
        return table.reindex(range(len(records))).assign(problem=pd.Series(problems, dtype=object))


def input_columns(data: Data, rows: Rows) -> TableData:
    """Which columns new rows have: those of the run's table; for another source image, text, and each name in the
    records' tables."""
    if isinstance(data, TableData):
        return data
    names = dict.fromkeys(name for record in rows.train for name in record.table or {})
    return TableData(image="image" if "image" in rows.modalities else None,
                     text=["text"] if "text" in rows.modalities else [], table=list(names))


def _answers(found: Prediction, classes: Iterable[str]) -> pd.DataFrame:
    table = pd.DataFrame({"prediction": found.answers})
    if found.probabilities is not None:
        shares = pd.DataFrame(found.probabilities, columns=[f"p_{name}" for name in classes])
        table = pd.concat([table, shares], axis=1)
    if found.traces is not None:
        table["aligned"] = [joined(trace.aligned.parts) for trace in found.traces]
        table["explanation"] = [dict(trace.aligned.parts).get("reasoning") for trace in found.traces]
    return table
