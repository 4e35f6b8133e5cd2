"""Records -> what the fusion network reads, and the LightningDataModule that damages a second view of each anew."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import lightning as L
import numpy as np
import torch
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase

from ..config.schema import Config, FusionConfig
from ..corruption.conditions import validation_conditions
from ..data.record import MODALITIES, Record, seeded
from ..data.rows import Rows
from ..pipeline.corrupt import corrupt
from ..pipeline.modalities import REGISTRY
from ..training.tokenization import by_length, encode, pad
from .image_features import extract_image_features, has_pixels, small_pixels
from .tabular_features import Columns

View = dict[str, torch.Tensor | dict[str, torch.Tensor]]
"""`present`, bool of shape (rows, branches), and an input for each branch: `image`, features (rows, 1280) or uint8
pixels (rows, 3, side, side); `text`, token ids and mask; `table`, `scores` with NaN and `codes` of table.Columns."""


class Inputs:
    """What the network reads of records. `branches` are the modalities that it has one for, in their usual order."""

    def __init__(
        self,
        config: FusionConfig,
        modalities: Sequence[str],
        columns: Columns,
        tokenizer: PreTrainedTokenizerBase,
        device: str,
    ):
        self.config, self.columns, self.tokenizer, self.device = config, columns, tokenizer, device
        there = {
            "image": "image" in modalities,
            "text": "text" in modalities or bool(columns.words),
            "table": bool(columns.numbers or columns.categories),
        }
        self.branches = tuple(name for name in MODALITIES if there[name])

    def view(self, records: Sequence[Record], originals: Sequence[Record]) -> View:
        """A batch of records as they are seen; the features of pictures that are still the originals' are kept."""
        texts = [self.columns.text(record) for record in records]
        scores, codes = self.columns.scores(records), self.columns.codes(records)
        present = {
            "image": [has_pixels(record.image) for record in records],
            "text": [bool(text.strip()) for text in texts],
            "table": ~np.isnan(scores).all(1) | codes.any(1),
        }
        view: View = {"present": torch.tensor(np.column_stack([present[name] for name in self.branches]))}
        if "image" in self.branches:
            images = [record.image for record in records]
            if self.config.image == "small":
                view["image"] = small_pixels(images)
            else:
                keep = [record.image is own.image for record, own in zip(records, originals, strict=True)]
                view["image"] = torch.from_numpy(np.nan_to_num(extract_image_features(images, keep, self.device)))
        if "text" in self.branches:
            encodings = encode([(text,) for text in texts], self.tokenizer, self.config.max_tokens)
            view["text"] = pad(encodings, self.tokenizer)
        if "table" in self.branches:
            view["table"] = {"scores": torch.from_numpy(scores), "codes": torch.from_numpy(codes)}
        return view


def damaged(record: Record, config: FusionConfig, seed: int, epoch: int) -> Record:
    """A training row's second view in an epoch: noise on each modality at a level of its own, then modalities dropped.

    Levels are drawn from [0, config.noise], and each modality is dropped with probability config.drop_modality, never
    all of them. It depends on (seed, epoch, record id) alone; with both at 0 it is the record itself.
    """
    if config.noise > 0:
        rng = seeded("fusion noise", seed, epoch, record.id)
        levels = {name: rng.uniform(0, config.noise) for name in record.present}
        record = replace(
            record, **{name: REGISTRY[name].noise(getattr(record, name), level, rng) for name, level in levels.items()}
        )
    if config.drop_modality > 0 and record.present:
        rng = seeded("fusion drop", seed, epoch, record.id)
        dropped = rng.random(len(record.present)) < config.drop_modality
        if dropped.all():
            dropped[rng.integers(len(dropped))] = False
        names = [name for name, out in zip(record.present, dropped, strict=True) if out]
        record = replace(record, **dict.fromkeys(names))
    return record


class FusionDataModule(L.LightningDataModule):
    """Rows -> batches like TextDataModule's: each of training has two `views`, the clean one and the damaged one.

    Without noise and dropped modalities the second view is the clean one again, so that all methods read as much.
    """

    def __init__(self, config: Config, rows: Rows, inputs: Inputs):
        super().__init__()
        self.config, self.rows, self.inputs = config, rows, inputs
        texts = [(inputs.columns.text(record),) for record in rows.train]
        self._lengths = [
            len(encoding["input_ids"]) for encoding in encode(texts, inputs.tokenizer, config.model.max_tokens)
        ]
        self._validation: list[dict] | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in one pass over the training rows, on one device."""
        return -(-len(self.rows.train) // self.config.trainer.batch_size)

    def train_dataloader(self) -> DataLoader:
        """Asked for anew before each epoch. Batches follow from (seed, epoch, lengths of the texts)."""
        epoch = self.trainer.current_epoch if self.trainer else 0
        batches = by_length(self._lengths, self.config.trainer.batch_size, seeded("batches", self.config.seed, epoch))
        return DataLoader(self.rows.train, batch_sampler=batches, collate_fn=partial(self.training_batch, epoch))

    def training_batch(self, epoch: int, records: list[Record]) -> dict:
        """`views`, `labels` of shape (rows,) and `targets` of some training rows in an epoch."""
        views = [self.inputs.view(records, records)]
        if self.config.perturbation.weight:
            model = self.config.model
            seen = [damaged(record, model, self.config.seed, epoch) for record in records]
            views.append(self.inputs.view(seen, records) if model.noise or model.drop_modality else views[0])
        return {"views": views, **self._targets(records)}

    def val_dataloader(self) -> DataLoader:
        """The validation rows under every condition of the panel, clean first; made once."""
        if self._validation is None:
            size, val = 4 * self.config.trainer.batch_size, self.rows.val
            self._validation = []
            for index, condition in enumerate(validation_conditions(self.config.robustness, self.rows.modalities)):
                for start in range(0, len(val), size):
                    records = val[start : start + size]
                    seen = [corrupt(record, condition, self.rows.train) for record in records]
                    self._validation.append(
                        {
                            "views": [self.inputs.view(seen, records)],
                            **self._targets(records),
                            "conditions": torch.full((len(records),), index),
                        }
                    )
        return DataLoader(self._validation, batch_size=None)

    def _targets(self, records: Sequence[Record]) -> dict:
        targets = [record.target for record in records]
        return {"labels": torch.tensor([self.rows.target.label(target) for target in targets]), "targets": targets}
