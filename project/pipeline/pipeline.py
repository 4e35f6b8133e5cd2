"""The arrows from Record to text, composed: corrupt -> describe -> align -> perturb -> compose.

A text is a pure function of (record, condition, round, config), given the store: a resumed, requeued or re-ranked run
sees the same texts, and a test can ask for any of them.
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
"""How many training rows are tried for the one-shot example."""
NOTHING = "Nothing is known of this record."
"""What is read where a record has no modality left."""


@dataclass(frozen=True)
class Trace:
    """One record at every arrow; `parts` is what the model reads.

    `perturbed` is the text as training, or an attack, rewrote it, and None where nothing did.
    """

    record: Record
    corrupted: Record
    described: Parts
    aligned: Aligned
    perturbed: Parts | None = None

    @property
    def parts(self) -> Parts:
        """The text to train on or to predict from, in named pieces."""
        return self.aligned.parts if self.perturbed is None else self.perturbed


@dataclass
class Pipeline:
    """What the arrows need besides the record. `train` are the training rows: the exemplar is the output of one of
    them, and stale cells are theirs.

    One arrow is walked at a time: a second thread waits, for the store and the counts of the language model serve one.
    """

    config: Config
    task: Task
    store: Store
    llm: LanguageModel
    train: Sequence[Record]
    _examples: list[Exemplar | None] | None = None
    _lock: threading.RLock = field(default_factory=threading.RLock, repr=False)

    def clean(self, records: Sequence[Record]) -> list[Trace]:
        """Training rows as they are, aligned with the one-shot example like every other row."""
        with self._lock:
            return self._aligned(records, records, self.exemplar)

    def perturbed(self, traces: Sequence[Trace], round: int) -> list[Trace]:
        """The training rows `traces` in one round of the perturbation, at the stage that the config names."""
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
        """Validation and test rows under a condition: the same path, never perturbed, with the one-shot example."""
        with self._lock:
            corrupted = [corrupt(record, condition, self.train) for record in records]
            return self._aligned(records, corrupted, self.exemplar)

    @property
    def exemplar(self) -> Exemplar | None:
        """The one-shot example: a training row's own output without an example, the first that passed every check."""
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
    """The pipeline of a configuration, on its rows. Raises UserError where a set of instructions is too small."""
    instruction_sets(config.perturbation)  # told before anything is generated
    task = Task(config.data.question, rows.target.classes, config.data.lines, config.data.advice)
    return Pipeline(config, task, llm.store, llm, rows.train)


def compose(parts: Parts) -> tuple[str, ...]:
    """The pieces that the model reads, in order; a record of which nothing is known says so."""
    return tuple(text for _, text in parts if text) or (NOTHING,)
