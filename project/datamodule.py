"""The LightningDataModule: texts of each epoch, converted and perturbed anew.

Epoch e trains on round e mod rounds. What a row's text is in a round is a pure function of the row and the round, so
nothing depends on how often a loader was made, nor on whether a run was resumed.
"""

import lightning as L
import torch
from torch.utils.data import DataLoader, Dataset
from transformers import PreTrainedTokenizerBase

from .pipeline import Pipeline, Trace, compose
from .record import seeded
from .robustness.conditions import validation_conditions
from .sources import Rows
from .tokenize import Encoding, by_length, encode, pad


class Texts(Dataset):
    """Encoded texts with their labels and, for training, the perturbed view beside the clean one."""

    def __init__(self, clean: list[Encoding], labels: list[int], second: list[Encoding] | None = None,
                 groups: list[int] | None = None):
        self.clean, self.labels, self.second, self.groups = clean, labels, second, groups

    def __len__(self) -> int:
        return len(self.clean)

    def __getitem__(self, index: int) -> dict:
        item = {"views": [self.clean[index]], "label": self.labels[index]}
        if self.second is not None:
            item["views"].append(self.second[index])
        if self.groups is not None:
            item["condition"] = self.groups[index]
        return item


class TextDataModule(L.LightningDataModule):
    """Rows -> texts -> batches. Each training batch has `views`: the clean texts, then the perturbed ones."""

    def __init__(self, pipeline: Pipeline, rows: Rows, tokenizer: PreTrainedTokenizerBase):
        super().__init__()
        self.pipeline, self.rows, self.tokenizer = pipeline, rows, tokenizer
        self.config = pipeline.config
        self.label_of = {name: index for index, name in enumerate(rows.classes)}
        self._clean: list[Trace] | None = None
        self._rounds: dict[int, list[Encoding]] = {}
        self._validation: Texts | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in one pass over the training rows, on one device."""
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

    def train_texts(self, epoch: int) -> Texts:
        """What epoch `epoch` trains on; the second view is left out where its loss has no weight."""
        clean = self.clean_traces()
        second = None
        if self.config.perturbation.weight:
            round = epoch % self.config.perturbation.rounds
            if round not in self._rounds:
                self._rounds[round] = self._encode(self.traces_of_round(round))
            second = self._rounds[round]
        return Texts(self._clean_encodings, [self.label_of[trace.record.target] for trace in clean], second)

    def train_dataloader(self) -> DataLoader:
        """Asked for anew before each epoch. Batches follow from (seed, epoch, length of the clean texts)."""
        epoch = self.trainer.current_epoch if self.trainer else 0
        texts = self.train_texts(epoch)
        lengths = [len(encoding["input_ids"]) for encoding in texts.clean]
        batches = by_length(lengths, self.config.trainer.batch_size, seeded("batches", self.config.seed, epoch))
        return DataLoader(texts, batch_sampler=batches, collate_fn=self._collate)

    def val_dataloader(self) -> DataLoader:
        """The validation rows under every condition of the panel, clean first; `condition` tells them apart."""
        if self._validation is None:
            traces, groups = [], []
            for index, condition in enumerate(validation_conditions(self.config.robustness)):
                traces += self.pipeline.inferred(self.rows.val, condition)
                groups += [index] * len(self.rows.val)
            labels = [self.label_of.get(trace.record.target, -1) for trace in traces]
            self._validation = Texts(self._encode(traces), labels, groups=groups)
        return DataLoader(self._validation, batch_size=4 * self.config.trainer.batch_size, collate_fn=self._collate)

    def _encode(self, traces: list[Trace]) -> list[Encoding]:
        return encode([compose(trace.parts) for trace in traces], self.tokenizer, self.config.model.max_tokens)

    def _collate(self, items: list[dict]) -> dict:
        """`views`: encodings padded together, first all clean texts, then all second ones; `labels`: (rows,)."""
        count = len(items[0]["views"])
        batch = {
            "views": pad([item["views"][view] for view in range(count) for item in items], self.tokenizer),
            "labels": torch.tensor([item["label"] for item in items]),
        }
        if "condition" in items[0]:
            batch["conditions"] = torch.tensor([item["condition"] for item in items])
        return batch
