"""The pipeline from Record to text: corrupt -> describe -> align -> perturb -> compose.

Given the store, a text is a pure function of (record, condition, round, config): a resumed or requeued run, or one with
another number of ranks, reads the same texts, and a test can request any of them.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ..config.schema import Config
from ..corruption.conditions import CLEAN, Condition
from ..data.record import Record
from ..data.rows import Rows
from ..llm.client import LanguageModel
from ..llm.store.store import Store
from .alignment import Aligned, Exemplar, Parts, Task, align, exemplar_from
from .corrupt import corrupt
from .describe import describe
from .perturbation import perturb
from .perturbation.instructions import instruction_sets

EXEMPLAR_ROWS = 8
"""Number of training rows that are candidates for the one-shot example."""
EMPTY_TEXT = "Nothing is known of this record."
"""The text of a record without any modality."""


@dataclass(frozen=True)
class Trace:
    """One record after each step; the model reads `parts`.

    `perturbed` is the text rewritten for training or by an attack, None without rewriting.
    """

    record: Record
    corrupted: Record
    described: Parts
    aligned: Aligned
    perturbed: Parts | None = None

    @property
    def parts(self) -> Parts:
        """Return the text to train on or to predict from, as named parts."""
        return self.aligned.parts if self.perturbed is None else self.perturbed


@dataclass
class Pipeline:
    """The steps and their resources. `train` are the training rows, the source of the exemplar and of stale cells.

    Thread-safe through one lock; store and usage counters are not.
    """

    config: Config
    task: Task
    store: Store
    llm: LanguageModel
    train: Sequence[Record]
    _examples: list[Exemplar | None] | None = None
    _lock: threading.RLock = field(default_factory=threading.RLock, repr=False)

    def clean(self, records: Sequence[Record]) -> list[Trace]:
        """Return uncorrupted training rows, aligned with the one-shot example like all other rows."""
        with self._lock:
            return self._aligned(records, records, self.exemplar)

    def perturbed(self, traces: Sequence[Trace], round: int) -> list[Trace]:
        """Return the training rows `traces` rewritten in one round, before or after alignment (perturbation.stage)."""
        with self._lock:
            config, classes = self.config.perturbation, self.task.classes
            ids = [trace.record.id for trace in traces]
            if config.stage == "aligned" or config.kind in ("none", "freelb"):
                texts = perturb(ids, [trace.aligned.parts for trace in traces], round, config, self.llm, classes)
            else:
                described = perturb(ids, [trace.described for trace in traces], round, config, self.llm, classes)
                texts = [
                    result.parts
                    for result in align(described, self.llm, self.config.alignment, self.task, self.exemplar)
                ]
            return [replace(trace, perturbed=text) for trace, text in zip(traces, texts, strict=True)]

    def transform(self, records: Sequence[Record], condition: Condition = CLEAN) -> list[Trace]:
        """Return validation or test rows under a condition: the same steps without perturbation."""
        with self._lock:
            corrupted = [corrupt(record, condition, self.train) for record in records]
            return self._aligned(records, corrupted, self.exemplar)

    @property
    def exemplar(self) -> Exemplar | None:
        """The one-shot example: the first training row whose output, made without an example, passed every check."""
        config = self.config.alignment
        if not config.exemplar or not (config.style or config.summary):
            return None
        with self._lock:
            if self._examples is None:
                rows = self._aligned(self.train[:EXEMPLAR_ROWS], self.train[:EXEMPLAR_ROWS], None)
                self._examples = [exemplar_from([row.described for row in rows], [row.aligned for row in rows])]
            return self._examples[0]

    def _aligned(
        self, records: Sequence[Record], corrupted: Sequence[Record], exemplar: Exemplar | None
    ) -> list[Trace]:
        described = describe(corrupted, self.config.experts, self.store)
        aligned = align(described, self.llm, self.config.alignment, self.task, exemplar)
        return [Trace(*row) for row in zip(records, corrupted, described, aligned, strict=True)]


def open_pipeline(config: Config, rows: Rows, llm: LanguageModel) -> Pipeline:
    """Return the pipeline of a configuration and its rows. Raises UserError if a set of instructions is too small."""
    instruction_sets(config.perturbation)  # raises before anything is generated
    task = Task(config.data.question, rows.target.classes, config.data.lines, config.data.advice)
    return Pipeline(config, task, llm.store, llm, rows.train)


def compose(parts: Parts) -> tuple[str, ...]:
    """Return the texts that the model reads, in order; EMPTY_TEXT for a record without any."""
    return tuple(text for _, text in parts if text) or (EMPTY_TEXT,)
