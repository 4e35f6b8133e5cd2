"""A trained run that answers for new rows, through the text pipeline of its training."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd

from ..config.compose import run_config
from ..config.schema import Config
from ..corruption.conditions import CLEAN
from ..data.inference_inputs import check_columns, input_columns, load_pictures, record_of
from ..data.record import Record
from ..data.rows import read_rows
from ..errors import UserError
from ..llm.factory import open_llm
from ..methods.base import method_of
from ..pipeline.pipeline import compose, open_pipeline

BATCH = 256
"""Rows per batch; the images of a batch are in memory."""
UNPARSED = "the language model gave no answer that could be read"


def load_run(folder: str | Path, *settings: str) -> "TrainedRun":
    """Load a trained run to answer for new rows: `predictor = load_run(path); predictor(rows)`.

    `settings` are key=value as on the command line: keys of the environment, such as store.path, and another option of
    llm with its keys. The run's data must be where its configuration says. Raises UserError if the folder holds no
    trained run, or if the data or a setting is wrong.
    """
    return TrainedRun(run_config(folder, settings), Path(folder))


class TrainedRun:
    """The method of a run, loaded once. Threads may share it; calls run one after another.

    New generations are in the store at once; `close`, or leaving a `with` block, seals the journal.
    """

    def __init__(self, config: Config, folder: Path):
        self.config, self.rows, llm = config, read_rows(config.data), open_llm(config)
        self.columns = input_columns(config.data, self.rows)
        self._store, self._pipeline = llm.store, open_pipeline(config, self.rows, llm)
        self._predictor = method_of(config).load(config, folder, self._pipeline, self.rows)
        self._lock = threading.Lock()
        classes = self.rows.target.classes
        answer, self._probability_columns = "string" if classes else float, [f"p_{name}" for name in classes]
        self._types = {
            "prediction": answer,
            **dict.fromkeys(self._probability_columns, float),
            "read": "string",
            "explanation": "string",
            "llm_prediction": answer,
            "problem": "string",
        }

    def __call__(self, rows: pd.DataFrame | Sequence[Record] | Sequence[Mapping]) -> pd.DataFrame:
        """Return one row of answers for each record, mapping or row of a frame, in their order.

        Frames and mappings have the columns of the run's data, and the answers are added to these columns. A key that a
        mapping lacks is a missing value. An image is a Pillow image, or a path within the current folder. The answers:

        - `prediction`, and for each class its probability `p_<class>`
        - `read`, the text that the model read
        - `explanation` and `llm_prediction` of the language model
        - `problem`, the reason why a row has no answer

        Columns that a method does not fill are missing values. Raises UserError if a frame lacks a column.
        """
        if isinstance(rows, pd.DataFrame):
            check_columns(list(rows.columns), self.columns, "rows")
            frame = rows
        elif all(isinstance(row, Record) for row in rows):
            return pd.concat(self.answers(rows, Path()), ignore_index=True)
        else:
            frame = pd.DataFrame(list(map(dict, rows)), dtype=object)
        inputs = self.rename_conflicts(frame, "rows")
        answers = pd.concat(self.answers(rows, Path()), ignore_index=True)
        return pd.concat([inputs, answers.set_axis(inputs.index)], axis=1)

    def answers(self, rows: pd.DataFrame | Sequence[Record | Mapping], folder: Path) -> Iterator[pd.DataFrame]:
        """Yield the answers without the input columns, one batch at a time; image paths must stay in `folder`."""
        for start in range(0, max(len(rows), 1), BATCH):
            if isinstance(rows, pd.DataFrame):
                batch = rows.iloc[start : start + BATCH].to_dict("records")
            else:
                batch = rows[start : start + BATCH]
            yield self._answer_batch(batch, start + 1, folder.resolve())

    def rename_conflicts(self, frame: pd.DataFrame, where: str) -> pd.DataFrame:
        """Rename the columns of a frame that have the name of an answer to input_<name>.

        Raises UserError if the frame has a column of the new name.
        """
        names = {name: f"input_{name}" for name in frame if name in self._types}
        for name, new in names.items():
            if new in frame:
                raise UserError(
                    f"{where}: the column {name!r} has the name of an answer, and {new!r} is there too; "
                    "rename one of them"
                )
        return frame.rename(columns=names)

    def close(self) -> None:
        """Seal the new generations into a shard of the store; the run can still be called."""
        self._store.close()

    def __enter__(self) -> "TrainedRun":
        return self

    def __exit__(self, *error) -> None:
        self._store.__exit__(*error)

    def _answer_batch(self, rows: Sequence[Record | Mapping], first: int, folder: Path) -> pd.DataFrame:
        """Return the answers for a batch whose first row has the number `first`."""
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
            columns = self._predict(list(records.values())) if records else {}
        problems |= {
            index: UNPARSED
            for index, answer in zip(records, columns.get("prediction", []), strict=True)
            if answer is None
        }
        table = pd.DataFrame(columns, index=list(records), dtype=object).reindex(range(len(rows)))
        table["problem"] = pd.Series(problems, dtype=object)
        return table.reindex(columns=list(self._types)).astype(self._types)

    def _predict(self, records: list[Record]) -> dict[str, list]:
        """Return the answers by column; a prediction is None if the language model gave none."""
        prediction, is_number = self._predictor(records, CLEAN), not self.rows.target.classes
        unparsed = prediction.unparsed or [False] * len(records)
        columns: dict[str, list] = {
            "prediction": [
                None if is_unparsed else answer
                for answer, is_unparsed in zip(prediction.answers, unparsed, strict=True)
            ]
        }
        if prediction.probabilities is not None:
            columns |= dict(zip(self._probability_columns, prediction.probabilities.T.tolist(), strict=True))
        traces = prediction.traces
        if self.config.model.kind == "llm":  # its predictor returns no traces
            traces = self._pipeline.transform(records)
        if traces is not None:
            llm_answers = [trace.aligned.prediction for trace in traces]
            columns |= {
                "read": [" ".join(compose(trace.parts)) for trace in traces],
                "explanation": [trace.aligned.explanation for trace in traces],
                "llm_prediction": [
                    float(answer) if is_number and answer is not None else answer for answer in llm_answers
                ],
            }
        return columns
