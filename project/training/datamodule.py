"""The LightningDataModule: the texts of each epoch, clean and perturbed.

Epoch e trains on round e mod rounds; with several candidates, on that round and the next ones. The text of a row in a
round is a pure function of row and round, so it depends neither on how often a loader was created nor on whether a run
was resumed. With a language model on a server, a thread generates the texts of epoch e+1 during epoch e; a model that
shares the processor with training would only slow training down.
"""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future

import lightning as L
import torch
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from ..corruption.conditions import validation_conditions
from ..data.record import seeded
from ..data.rows import Rows
from ..data.target import Target
from ..llm.factory import is_remote
from ..pipeline.pipeline import Pipeline, Trace, compose
from .batching import ResumableLoader, shard_eval_batches, split_batch
from .tokenization import Encoding, by_length, encode, pad


class EncodedTexts(Dataset):
    """Encoded texts with their targets and, for training, the candidates for the second view."""

    def __init__(
        self,
        clean: list[Encoding],
        targets: list[str | float],
        target: Target,
        candidates: Sequence[list[Encoding]] = (),
        groups: list[int] | None = None,
    ):
        self.clean, self.targets, self.target, self.candidates, self.groups = clean, targets, target, candidates, groups

    def __len__(self) -> int:
        return len(self.clean)

    def __getitem__(self, index: int) -> dict:
        target = self.targets[index]
        views = [self.clean[index], *(texts[index] for texts in self.candidates)]
        item = {"views": views, "target": target, "label": self.target.label(target)}
        if self.groups is not None:
            item["condition"] = self.groups[index]
        return item


class TextDataModule(L.LightningDataModule):
    """Turn rows into texts and batches. Each training batch has two `views`: the clean texts and the perturbed ones.

    If the model selects the hardest of several rounds, each round is a view; these are padded to one length. With
    several devices each rank reads its micro-batches of every step. It generates the missing texts whose key is
    assigned to it, and polls the store for the others.
    """

    shards_batches = True

    def __init__(self, pipeline: Pipeline, rows: Rows, tokenizer: PreTrainedTokenizerBase):
        super().__init__()
        self.pipeline, self.rows, self.tokenizer = pipeline, rows, tokenizer
        self.config = pipeline.config
        self._clean: list[Trace] | None = None
        self._rounds: dict[int, list[Encoding]] = {}
        self._validation: EncodedTexts | None = None
        self._prefetches: dict[int, Future[list[Trace]]] = {}

    def setup(self, stage: str) -> None:
        """Divide the missing generations among the ranks."""
        self.pipeline.llm.share = self._rank, self._devices

    def teardown(self, stage: str) -> None:
        """Let the first rank generate everything that is needed after training."""
        self.pipeline.llm.share = 0, 1

    @property
    def _rank(self) -> int:
        return self.trainer.global_rank if self.trainer else 0

    @property
    def _devices(self) -> int:
        return self.trainer.world_size if self.trainer else 1

    @property
    def _passes(self) -> int:
        return self.trainer.accumulate_grad_batches if self.trainer else 1

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of one epoch."""
        return -(-len(self.rows.train) // self.config.trainer.batch_size)

    def clean_traces(self) -> list[Trace]:
        """Return the unperturbed training rows, computed once."""
        if self._clean is None:
            self._clean = self.pipeline.clean(self.rows.train)
            self._clean_encodings = self._encode(self._clean)
        return self._clean

    def traces_of_round(self, round: int) -> list[Trace]:
        """Return the training rows as perturbed in the round."""
        return self.pipeline.perturbed(self.clean_traces(), round)

    def rounds_of(self, epoch: int) -> list[int]:
        """Return the rounds of an epoch's second views; none if their loss has weight 0."""
        config = self.config.perturbation
        return [(epoch + offset) % config.rounds for offset in range(config.num_candidates)] if config.weight else []

    def train_texts(self, epoch: int) -> EncodedTexts:
        """Return the training texts of an epoch."""
        clean = self.clean_traces()
        rounds = self.rounds_of(epoch)
        for round in rounds:
            if round not in self._rounds:
                prefetch = self._prefetches.pop(round, None)
                self._rounds[round] = self._encode(prefetch.result() if prefetch else self.traces_of_round(round))
        return EncodedTexts(
            self._clean_encodings,
            [trace.record.target for trace in clean],
            self.rows.target,
            [self._rounds[round] for round in rounds],
        )

    def train_dataloader(self) -> ResumableLoader:
        """Return the loader of the current epoch; its texts are generated with the first batch."""
        epoch = self.trainer.current_epoch if self.trainer else 0
        return ResumableLoader(
            lambda start: self._train_batches(epoch, start), self.steps_per_epoch * self._passes, self._passes
        )

    def _train_batches(self, epoch: int, start: int) -> Iterator[dict]:
        """Yield this rank's batches from number `start` on; they depend on (seed, epoch, text lengths) alone."""
        texts = self.train_texts(epoch)
        if self.trainer and is_remote(self.config) and epoch + 1 < self.trainer.max_epochs:
            self.validation_texts()  # otherwise the first validation would wait for the prefetched round
            for round in self.rounds_of(epoch + 1):
                self._prefetch(round)
        # Both views count: a perturbed text is often much shorter or longer than its clean one.
        lengths = [sum(len(view["input_ids"]) for view in texts[index]["views"]) for index in range(len(texts))]
        steps = by_length(lengths, self.config.trainer.batch_size, seeded("batches", self.config.seed, epoch))
        # In one pass all devices read texts of similar length.
        micro_batches = [
            part
            for step in steps
            for part in split_batch(step, self._passes * self._devices)[self._rank :: self._devices]
        ]
        for part in micro_batches[start:]:
            yield {**self._collate([texts[index] for index in part.rows]), "weight": part.weight}

    def _prefetch(self, round: int) -> None:
        """Start a thread that generates a round; its errors are raised when the round is read."""
        if round in self._rounds or round in self._prefetches:
            return
        future = self._prefetches[round] = Future()

        def generate() -> None:
            try:
                future.set_result(self.traces_of_round(round))
            except BaseException as error:
                future.set_exception(error)

        threading.Thread(target=generate, name=f"round {round}", daemon=True).start()

    def cancel_generation(self) -> None:
        """Stop generation in all threads once the pending requests are answered; safe in a signal handler."""
        # Setting an event takes a lock, which the interrupted thread may hold.
        threading.Thread(target=self.pipeline.llm.cancelled.set).start()

    def stop_prefetching(self) -> None:
        """Cancel the prefetched rounds; pending requests are completed and stored."""
        cancelled = self.pipeline.llm.cancelled
        cancelled.set()
        for future in self._prefetches.values():
            future.exception()
        cancelled.clear()
        self._prefetches.clear()

    def validation_texts(self) -> EncodedTexts:
        """Return the validation rows under every condition of the panel, clean first; computed once."""
        if self._validation is None:
            traces, groups = [], []
            for index, condition in enumerate(validation_conditions(self.config.robustness, self.rows.modalities)):
                traces += self.pipeline.transform(self.rows.val, condition)
                groups += [index] * len(self.rows.val)
            targets = [trace.record.target for trace in traces]
            self._validation = EncodedTexts(self._encode(traces), targets, self.rows.target, groups=groups)
        return self._validation

    def val_dataloader(self) -> ResumableLoader:
        """Return this rank's validation batches; `conditions` has the index of each row's condition in the panel."""
        texts, trainer = self.validation_texts(), self.config.trainer
        size = 4 * -(-trainer.batch_size // (self._passes * self._devices))
        chunks = [range(start, min(start + size, len(texts))) for start in range(0, len(texts), size)]
        batches = shard_eval_batches(chunks, self._rank, self._devices)
        return ResumableLoader(
            lambda _: (
                self._collate([texts[index] for index in batch.rows], counted=bool(batch.weight)) for batch in batches
            ),
            len(batches),
        )

    def _encode(self, traces: list[Trace]) -> list[Encoding]:
        return encode([compose(trace.parts) for trace in traces], self.tokenizer, self.config.model.max_tokens)

    def _collate(self, items: list[dict], counted: bool = True) -> dict:
        """Return a batch with `views`, `labels` of shape (rows,) and `targets`; in validation also `conditions`.

        `views` are the clean texts and, in training, the candidates, which are padded separately. `targets` are class
        names, or numbers in the target's unit. Rows of a batch that is not `counted` have condition -1.
        """
        clean, *candidates = zip(*(item["views"] for item in items), strict=True)
        batch = {
            "views": [pad(clean, self.tokenizer), *self._pad_to_one_length(candidates)],
            "labels": torch.tensor([item["label"] for item in items]),
            "targets": [item["target"] for item in items],
        }
        if "condition" in items[0]:
            batch["conditions"] = torch.tensor([item["condition"] if counted else -1 for item in items])
        return batch

    def _pad_to_one_length(self, views: Sequence[Sequence[Encoding]]) -> list[dict[str, torch.Tensor]]:
        """Return the batch of each view, all of one length, so that a row can be selected from any view."""
        if not views:
            return []
        padded = pad([encoding for view in views for encoding in view], self.tokenizer)
        chunks = zip(*(values.chunk(len(views)) for values in padded.values()), strict=True)
        return [dict(zip(padded, chunk, strict=True)) for chunk in chunks]
