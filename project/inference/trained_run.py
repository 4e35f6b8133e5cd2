"""The verb `predict`, and load_run: a trained run answers for new rows, by the text path of its training."""

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
from rich.console import Console

from ..config.compose import run_config
from ..config.schema import Config
from ..corruption.conditions import CLEAN
from ..data.inference_inputs import check_columns, input_columns, load_pictures, record_of
from ..data.record import Record
from ..data.rows import read_rows
from ..data.tabular_io import SEPARATORS, read_frame
from ..errors import UserError
from ..llm.factory import open_llm
from ..methods.base import method_of
from ..pipeline.pipeline import compose, open_pipeline
from ..runtime.atomic_io import atomic_path, write_parquet
from ..runtime.progress import progress_bar

BATCH = 256
"""Rows that are described, aligned and scored at once: their images are in memory."""
ENDINGS = (".parquet", *SEPARATORS)
UNPARSED = "the language model gave no answer that could be read"


def run(config: Config, args: dict[str, str]) -> None:
    """Answer for the rows of the file `input`, in their order, and write them with the answers to `output`.

    Raises UserError where a file is wrong as a whole; a row that is wrong is written with its `problem`.
    """
    for key in ("run", "input", "output"):
        if key not in args:
            raise UserError(
                f"predict: {key} is not given; python -m project predict run=<folder> input=rows.csv "
                "output=predictions.parquet"
            )
    source, output = Path(args["input"]).expanduser(), Path(args["output"]).expanduser()
    if not output.name.lower().endswith(ENDINGS):
        raise UserError(f"output={output}: unknown ending; give {', '.join(ENDINGS)}")
    if output.exists():
        raise UserError(f"output={output} is there already; delete it, or give another name")
    frame = read_frame(source, verbatim=True, key="input")
    with TrainedRun(config, Path(args["run"])) as trained:
        check_columns(list(frame.columns), trained.columns, str(source))
        kept = trained.kept(frame, str(source))  # a name that cannot be kept is told before anything is spent
        parts = []
        with progress_bar() as bar:
            task = bar.add_task("rows", total=len(frame))
            for part in trained.answers(frame, source.parent):
                parts.append(part)
                bar.advance(task, len(part))
    answers = pd.concat(parts, ignore_index=True)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        _write(pd.concat([kept, answers], axis=1), output)
    except OSError as error:
        raise UserError(f"cannot write {output}: {error.strerror or error}") from error
    failed = int(answers["problem"].notna().sum())
    told = f", {failed} of which have no answer but a problem" if failed else ""
    renamed = [name for name in kept if name not in frame]
    told += f"; renamed, for answers have their names: {', '.join(renamed)}" if renamed else ""
    Console().print(f"{len(frame)} rows{told}: {output}", highlight=False, markup=False)


def _write(table: pd.DataFrame, output: Path) -> None:
    """Write a table whole or not at all."""
    ending = next(ending for ending in ENDINGS if output.name.lower().endswith(ending))
    if ending == ".parquet":
        write_parquet(table.assign(**{name: _of_one_type(table[name]) for name in table}), output)
        return
    with atomic_path(output) as part:
        table.to_csv(part, index=False, sep=SEPARATORS[ending], compression="gzip" if ending.endswith("gz") else None)


def _of_one_type(column: pd.Series) -> pd.Series:
    """The column as it is, or as JSON where its cells are of types that no one column of a Parquet holds."""
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


def load_run(folder: str | Path, *settings: str) -> "TrainedRun":
    """A trained run that answers for new rows: `predictor = load_run(path); predictor(rows)`.

    `settings` are key=value as on the command line: those of the environment, such as store.path, and another option
    of llm with its keys. The run's own data must be where its configuration says. Raises UserError.
    """
    return TrainedRun(run_config(folder, settings), Path(folder))


class TrainedRun:
    """A run's method, loaded once; threads may share it, and wait for each other.

    New generations are in the store at once; `close`, or `with`, seals its journal.
    """

    def __init__(self, config: Config, folder: Path):
        self.config, self.rows, llm = config, read_rows(config.data), open_llm(config)
        self.columns = input_columns(config.data, self.rows)
        self._store, self._pipeline = llm.store, open_pipeline(config, self.rows, llm)
        self._predictor = method_of(config).load(config, folder, self._pipeline, self.rows)
        self._lock = threading.Lock()
        classes = self.rows.target.classes
        answer, self._shares = "string" if classes else float, [f"p_{name}" for name in classes]
        self._types = {
            "prediction": answer,
            **dict.fromkeys(self._shares, float),
            "read": "string",
            "explanation": "string",
            "llm_prediction": answer,
            "problem": "string",
        }

    def __call__(self, rows: pd.DataFrame | Sequence[Record] | Sequence[Mapping]) -> pd.DataFrame:
        """A row of answers for each record, mapping or row of a frame, in their order.

        They stand beside the columns of frames and mappings, which have those of the run's data; a mapping may lack
        some, which are then missing. An image is a Pillow image, or a path in the current folder. The answers are
        `prediction`; of each class its probability, `p_<class>`; the text that was `read`; the language model's own
        `explanation` and `llm_prediction`; and `problem`, why a row has no answer. What a method does not give is
        missing. Raises UserError where a frame lacks a column.
        """
        if isinstance(rows, pd.DataFrame):
            check_columns(list(rows.columns), self.columns, "rows")
            frame = rows
        elif all(isinstance(row, Record) for row in rows):
            return pd.concat(self.answers(rows, Path()), ignore_index=True)
        else:
            frame = pd.DataFrame(list(map(dict, rows)), dtype=object)
        kept = self.kept(frame, "rows")
        answers = pd.concat(self.answers(rows, Path()), ignore_index=True)
        return pd.concat([kept, answers.set_axis(kept.index)], axis=1)

    def answers(self, rows: pd.DataFrame | Sequence[Record | Mapping], folder: Path) -> Iterator[pd.DataFrame]:
        """The answers alone, some rows at a time; paths of images stay in `folder`."""
        for start in range(0, max(len(rows), 1), BATCH):
            if isinstance(rows, pd.DataFrame):
                some = rows.iloc[start : start + BATCH].to_dict("records")
            else:
                some = rows[start : start + BATCH]
            yield self._answered(some, start + 1, folder.resolve())

    def kept(self, frame: pd.DataFrame, where: str) -> pd.DataFrame:
        """The frame as it stands beside the answers: a column that is called like one becomes input_<name>.

        Raises UserError where the frame has a column of that name too.
        """
        names = {name: f"input_{name}" for name in frame if name in self._types}
        for name, new in names.items():
            if new in frame:
                raise UserError(
                    f"{where}: the column {name!r} is called like an answer, and {new!r} is there too; "
                    "rename one of them"
                )
        return frame.rename(columns=names)

    def close(self) -> None:
        """Seal what was generated into a shard of the store; the run can still be asked."""
        self._store.close()

    def __enter__(self) -> "TrainedRun":
        return self

    def __exit__(self, *error) -> None:
        self._store.__exit__(*error)

    def _answered(self, rows: Sequence[Record | Mapping], first: int, folder: Path) -> pd.DataFrame:
        """The answers for some rows, the first of which has the number `first`."""
        records, problems = {}, {}
        for index, row in enumerate(rows):
            try:
                records[index] = (
                    load_pictures(row)
                    if isinstance(row, Record)
                    else record_of(row, self.columns, first + index, folder)
                )
            except UserError as error:
                problems[index] = str(error)
        with self._lock:
            found = self._asked(list(records.values())) if records else {}
        problems |= {
            index: UNPARSED
            for index, answer in zip(records, found.get("prediction", []), strict=True)
            if answer is None
        }
        table = pd.DataFrame(found, index=list(records), dtype=object).reindex(range(len(rows)))
        table["problem"] = pd.Series(problems, dtype=object)
        return table.reindex(columns=list(self._types)).astype(self._types)

    def _asked(self, records: list[Record]) -> dict[str, list]:
        """The method's answers by column; a prediction is None where a language model gave none."""
        prediction, number = self._predictor(records, CLEAN), not self.rows.target.classes
        missing = prediction.unparsed or [False] * len(records)
        found: dict[str, list] = {
            "prediction": [
                None if without else answer for answer, without in zip(prediction.answers, missing, strict=True)
            ]
        }
        if prediction.probabilities is not None:
            found |= dict(zip(self._shares, prediction.probabilities.T.tolist(), strict=True))
        traces = prediction.traces
        if self.config.model.kind == "llm":  # whose predictor gives no traces
            traces = self._pipeline.transform(records)
        if traces is not None:
            said = [trace.aligned.prediction for trace in traces]
            found |= {
                "read": [" ".join(compose(trace.parts)) for trace in traces],
                "explanation": [trace.aligned.explanation for trace in traces],
                "llm_prediction": [float(word) if number and word is not None else word for word in said],
            }
        return found
