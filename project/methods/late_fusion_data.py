"""Inputs of the fusion network, and the LightningDataModule that augments a second view of each record per epoch."""

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
from .image_features import extract_image_features, has_pixels, small_pixels, unchanged_images
from .tabular_features import Columns

View = dict[str, torch.Tensor | dict[str, torch.Tensor]]
"""`present`, bool of shape (rows, branches), and an input for each branch: `image`, features (rows, 1280) or uint8
pixels (rows, 3, side, side); `text`, token ids and mask; `table`, `scores` with NaN and `codes` of Columns."""


class Inputs:
    """Convert records to inputs of the network. `branches` are the modalities of the data, in their default order."""

    def __init__(
        self,
        config: FusionConfig,
        modalities: Sequence[str],
        columns: Columns,
        tokenizer: PreTrainedTokenizerBase,
        device: str,
    ):
        self.config, self.columns, self.tokenizer, self.device = config, columns, tokenizer, device
        has_branch = {
            "image": "image" in modalities,
            "text": "text" in modalities or bool(columns.words),
            "table": bool(columns.numbers or columns.categories),
        }
        self.branches = tuple(name for name in MODALITIES if has_branch[name])

    def view(self, records: Sequence[Record], originals: Sequence[Record]) -> View:
        """Return a batch of (corrupted) records; the features of pictures that equal the original ones are cached."""
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
                features = extract_image_features(images, unchanged_images(records, originals), self.device)
                view["image"] = torch.from_numpy(np.nan_to_num(features))
        if "text" in self.branches:
            encodings = encode([(text,) for text in texts], self.tokenizer, self.config.max_tokens)
            view["text"] = pad(encodings, self.tokenizer)
        if "table" in self.branches:
            view["table"] = {"scores": torch.from_numpy(scores), "codes": torch.from_numpy(codes)}
        return view


def augment(record: Record, config: FusionConfig, seed: int, epoch: int) -> Record:
    """Return a training row's second view in an epoch: noise on each modality, then dropped modalities.

    The noise level of each modality is uniform in [0, config.noise]. Each modality is dropped with probability
    config.drop_modality, but never all of them. The view depends on (seed, epoch, record id) alone; with both settings
    at 0 the record itself is returned.
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
        names = [name for name, is_dropped in zip(record.present, dropped, strict=True) if is_dropped]
        record = replace(record, **dict.fromkeys(names))
    return record


class FusionDataModule(L.LightningDataModule):
    """Turn rows into batches like TextDataModule's: each training batch has two `views`, clean and augmented.

    Without noise and modality dropout the second view equals the clean one, so that all methods read the same amount.
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
        """Optimizer steps of one epoch, on one device."""
        return -(-len(self.rows.train) // self.config.trainer.batch_size)

    def train_dataloader(self) -> DataLoader:
        """Return the loader of the current epoch; the batches depend on (seed, epoch, text lengths) alone."""
        epoch = self.trainer.current_epoch if self.trainer else 0
        batches = by_length(self._lengths, self.config.trainer.batch_size, seeded("batches", self.config.seed, epoch))
        return DataLoader(self.rows.train, batch_sampler=batches, collate_fn=partial(self.training_batch, epoch))

    def training_batch(self, epoch: int, records: list[Record]) -> dict:
        """Return `views`, `labels` of shape (rows,) and `targets` of training rows in an epoch."""
        views = [self.inputs.view(records, records)]
        if self.config.perturbation.weight:
            model = self.config.model
            augmented = [augment(record, model, self.config.seed, epoch) for record in records]
            views.append(self.inputs.view(augmented, records) if model.noise or model.drop_modality else views[0])
        return {"views": views, **self._targets(records)}

    def val_dataloader(self) -> DataLoader:
        """Return the validation rows under every condition of the panel, clean first; computed once."""
        if self._validation is None:
            size, val = 4 * self.config.trainer.batch_size, self.rows.val
            self._validation = []
            for index, condition in enumerate(validation_conditions(self.config.robustness, self.rows.modalities)):
                for start in range(0, len(val), size):
                    records = val[start : start + size]
                    corrupted = [corrupt(record, condition, self.rows.train) for record in records]
                    self._validation.append(
                        {
                            "views": [self.inputs.view(corrupted, records)],
                            **self._targets(records),
                            "conditions": torch.full((len(records),), index),
                        }
                    )
        return DataLoader(self._validation, batch_size=None)

    def _targets(self, records: Sequence[Record]) -> dict:
        targets = [record.target for record in records]
        return {"labels": torch.tensor([self.rows.target.label(target) for target in targets]), "targets": targets}
