"""The LightningDataModule: texts of each epoch, converted and perturbed anew.

Epoch e trains on round e mod rounds; where the worst of several is chosen, these are that round and the next ones. What
a row's text is in a round is a pure function of the row and the round, so nothing depends on how often a loader was
made, nor on whether a run was resumed. With a language model on a server, what epoch e+1 needs is generated in the
background of epoch e; one that shares the processor with training would only slow it.
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
    """Encoded texts with their targets and, for training, the candidates for the second view beside the clean one."""

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
    """Rows -> texts -> batches. Each training batch has two `views`: the clean texts and the perturbed ones.

    Where the model is to choose the worst of several rounds, each of them is a view; they are padded to one length.
    With several devices each rank reads its part of every step's batch, and generates the missing texts whose key falls
    to it, waiting for the others' by the store alone.
    """

    shared = True

    def __init__(self, pipeline: Pipeline, rows: Rows, tokenizer: PreTrainedTokenizerBase):
        super().__init__()
        self.pipeline, self.rows, self.tokenizer = pipeline, rows, tokenizer
        self.config = pipeline.config
        self._clean: list[Trace] | None = None
        self._rounds: dict[int, list[Encoding]] = {}
        self._validation: EncodedTexts | None = None
        self._ahead: dict[int, Future[list[Trace]]] = {}

    def setup(self, stage: str) -> None:
        """Divide what is to be generated among the ranks."""
        self.pipeline.llm.share = self._rank, self._devices

    def teardown(self, stage: str) -> None:
        """What comes after the training is the first rank's alone."""
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
        """Optimizer steps in one pass over the training rows."""
        return -(-len(self.rows.train) // self.config.trainer.batch_size)

    def clean_traces(self) -> list[Trace]:
        """The training rows, unperturbed; made once."""
        if self._clean is None:
            self._clean = self.pipeline.clean(self.rows.train)
            self._clean_encodings = self._encode(self._clean)
        return self._clean

    def traces_of_round(self, round: int) -> list[Trace]:
        """The training rows as that round perturbs them."""
        return self.pipeline.perturbed(self.clean_traces(), round)

    def rounds_of(self, epoch: int) -> list[int]:
        """The rounds that an epoch's second views come from; none where their loss has no weight."""
        config = self.config.perturbation
        return [(epoch + further) % config.rounds for further in range(config.num_candidates)] if config.weight else []

    def train_texts(self, epoch: int) -> EncodedTexts:
        """What epoch `epoch` trains on."""
        clean = self.clean_traces()
        rounds = self.rounds_of(epoch)
        for round in rounds:
            if round not in self._rounds:
                ahead = self._ahead.pop(round, None)
                self._rounds[round] = self._encode(ahead.result() if ahead else self.traces_of_round(round))
        return EncodedTexts(
            self._clean_encodings,
            [trace.record.target for trace in clean],
            self.rows.target,
            [self._rounds[round] for round in rounds],
        )

    def train_dataloader(self) -> ResumableLoader:
        """Asked for anew before each epoch; its texts are made when its first batch is."""
        epoch = self.trainer.current_epoch if self.trainer else 0
        return ResumableLoader(
            lambda start: self._train_batches(epoch, start), self.steps_per_epoch * self._passes, self._passes
        )

    def _train_batches(self, epoch: int, start: int) -> Iterator[dict]:
        """This rank's batches from number `start` on. They follow from (seed, epoch, lengths of the texts)."""
        texts = self.train_texts(epoch)
        if self.trainer and is_remote(self.config) and epoch + 1 < self.trainer.max_epochs:
            self.validation_texts()  # else its first reader would wait for the round
            for round in self.rounds_of(epoch + 1):
                self._generate_ahead(round)
        # A perturbed text is often much shorter or longer than its clean one: both count.
        lengths = [sum(len(view["input_ids"]) for view in texts[index]["views"]) for index in range(len(texts))]
        steps = by_length(lengths, self.config.trainer.batch_size, seeded("batches", self.config.seed, epoch))
        # In one pass all devices read neighbours in length.
        mine = [
            part
            for step in steps
            for part in split_batch(step, self._passes * self._devices)[self._rank :: self._devices]
        ]
        for part in mine[start:]:
            yield {**self._collate([texts[index] for index in part.rows]), "weight": part.weight}

    def _generate_ahead(self, round: int) -> None:
        """Have a thread bring a round into the store; its errors are raised where the round is asked for."""
        if round in self._rounds or round in self._ahead:
            return
        future = self._ahead[round] = Future()

        def generate() -> None:
            try:
                future.set_result(self.traces_of_round(round))
            except BaseException as error:
                future.set_exception(error)

        threading.Thread(target=generate, name=f"round {round}", daemon=True).start()

    def give_up(self) -> None:
        """Stop generating, in any thread, as soon as the requests that are under way are answered; safe in a signal."""
        # Setting an event takes a lock, which the interrupted thread may hold.
        threading.Thread(target=self.pipeline.llm.cancelled.set).start()

    def stop_ahead(self) -> None:
        """Give up what is generated ahead; requests that are under way are finished and kept."""
        cancelled = self.pipeline.llm.cancelled
        cancelled.set()
        for future in self._ahead.values():
            future.exception()
        cancelled.clear()
        self._ahead.clear()

    def validation_texts(self) -> EncodedTexts:
        """The validation rows under every condition of the panel, clean first; made once."""
        if self._validation is None:
            traces, groups = [], []
            for index, condition in enumerate(validation_conditions(self.config.robustness, self.rows.modalities)):
                traces += self.pipeline.transform(self.rows.val, condition)
                groups += [index] * len(self.rows.val)
            targets = [trace.record.target for trace in traces]
            self._validation = EncodedTexts(self._encode(traces), targets, self.rows.target, groups=groups)
        return self._validation

    def val_dataloader(self) -> ResumableLoader:
        """This rank's validation texts; `conditions` of a batch tells the panel's conditions apart."""
        texts, trainer = self.validation_texts(), self.config.trainer
        size = 4 * -(-trainer.batch_size // (self._passes * self._devices))
        chunks = [range(start, min(start + size, len(texts))) for start in range(0, len(texts), size)]
        mine = shard_eval_batches(chunks, self._rank, self._devices)
        return ResumableLoader(
            lambda _: (
                self._collate([texts[index] for index in part.rows], counted=bool(part.weight)) for part in mine
            ),
            len(mine),
        )

    def _encode(self, traces: list[Trace]) -> list[Encoding]:
        return encode([compose(trace.parts) for trace in traces], self.tokenizer, self.config.model.max_tokens)

    def _collate(self, items: list[dict], counted: bool = True) -> dict:
        """`views`: the clean texts and, in training, the second ones, padded by themselves; `labels`: (rows,).

        `targets` are the classes' names, or the numbers in their own unit. What is not `counted` has the condition -1.
        """
        clean, *candidates = zip(*(item["views"] for item in items), strict=True)
        batch = {
            "views": [pad(clean, self.tokenizer), *self._padded_alike(candidates)],
            "labels": torch.tensor([item["label"] for item in items]),
            "targets": [item["target"] for item in items],
        }
        if "condition" in items[0]:
            batch["conditions"] = torch.tensor([item["condition"] if counted else -1 for item in items])
        return batch

    def _padded_alike(self, views: Sequence[Sequence[Encoding]]) -> list[dict[str, torch.Tensor]]:
        """Each view's batch, all of one length, so that any row may be taken from any of them."""
        if not views:
            return []
        whole = pad([encoding for view in views for encoding in view], self.tokenizer)
        parts = zip(*(values.chunk(len(views)) for values in whole.values()), strict=True)
        return [dict(zip(whole, part, strict=True)) for part in parts]
