"""The method's own model: texts of every epoch, read by a LoRA transformer."""

from collections.abc import Sequence
from pathlib import Path

import torch
from lightning.pytorch.utilities import rank_zero_only
from transformers import PreTrainedTokenizerBase

from ..config.schema import Config
from ..corruption.conditions import Condition
from ..data.record import Record
from ..data.rows import Rows
from ..errors import UserError
from ..pipeline.pipeline import Pipeline, Trace, compose
from ..training import heads as head
from ..training.datamodule import TextDataModule
from ..training.encoder import base_model, load_adapter, load_tokenizer
from ..training.fit import autocast_of, device_of, fit_module
from ..training.module import RobustModule
from ..training.tokenization import encode, pad
from .base import Prediction


def fit(config: Config, folder: Path, pipeline: Pipeline, rows: Rows, logger) -> dict:
    """Fine-tune on the training rows' texts, and keep adapter, head and tokenizer in folder/adapter."""
    tokenizer = load_tokenizer(config.model)
    data = TextDataModule(pipeline, rows, tokenizer)
    module = RobustModule(config, rows.target, data.steps_per_epoch * config.trainer.epochs)
    try:
        fitted = fit_module(config, folder, module, data, logger)
    finally:
        data.stop_ahead()
    if rank_zero_only.rank == 0:
        module.model.save_pretrained(folder / "adapter", safe_serialization=True)
        tokenizer.save_pretrained(folder / "adapter")
    return fitted


def load(config: Config, folder: Path, pipeline: Pipeline, rows: Rows) -> "TextTransformerPredictor":
    """The fine-tuned transformer of a run folder. Raises UserError where there is none."""
    if not (folder / "adapter").is_dir():
        raise UserError(
            f"{folder} holds no trained model; train it first: python -m project train "
            f"experiment={config.experiment} method={config.method} seed={config.seed}"
        )
    model = load_adapter(base_model(config.model, rows.target, config.seed), folder / "adapter")
    model.to(device_of(config.trainer))
    return TextTransformerPredictor(config, pipeline, rows, model, load_tokenizer(config.model))


REMEMBERED = 100_000
"""Texts whose logits are kept: more than an evaluation has, and few enough for a service that runs for months."""


class TextTransformerPredictor:
    """Reads texts and answers. A text is scored once, however many records and conditions have it."""

    def __init__(
        self, config: Config, pipeline: Pipeline, rows: Rows, model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase
    ):
        self.config, self.pipeline, self.target = config, pipeline, rows.target
        self.model, self.tokenizer = model, tokenizer
        self._logits: dict[tuple[str, ...], torch.Tensor] = {}

    def __call__(self, records: Sequence[Record], condition: Condition) -> Prediction:
        """The answers for records under a condition, unperturbed."""
        return self.read(self.pipeline.transform(records, condition))

    def read(self, traces: list[Trace]) -> Prediction:
        """The answers to the texts of the traces, in their order."""
        texts = [compose(trace.parts) for trace in traces]
        if len(self._logits) > REMEMBERED:
            self._logits.clear()
        self._score([text for text in dict.fromkeys(texts) if text not in self._logits])
        logits = torch.stack([self._logits[text] for text in texts])
        how = self.target, self.config.model.head
        return Prediction(head.answers(logits, *how), head.probabilities(logits, *how), traces)

    @torch.inference_mode()
    def _score(self, texts: list[tuple[str, ...]]) -> None:
        """Logits of distinct texts, in batches of like length."""
        encodings = encode(texts, self.tokenizer, self.config.model.max_tokens) if texts else []
        order = sorted(range(len(encodings)), key=lambda index: len(encodings[index]["input_ids"]))
        size = 4 * self.config.trainer.batch_size
        for start in range(0, len(order), size):
            indices = order[start : start + size]
            batch = pad([encodings[index] for index in indices], self.tokenizer)
            with autocast_of(self.config):
                logits = self.model(**{name: value.to(self.model.device) for name, value in batch.items()}).logits
            self._logits.update(zip((texts[index] for index in indices), logits.float().cpu(), strict=True))
