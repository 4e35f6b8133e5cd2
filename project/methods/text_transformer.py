"""The text-centric method: a LoRA transformer trained on the texts of each epoch."""

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
from ..training import heads
from ..training.datamodule import TextDataModule
from ..training.encoder import base_model, load_adapter, load_tokenizer
from ..training.fit import autocast_of, device_of, fit_module
from ..training.fit_info import FitInfo
from ..training.module import RobustModule
from ..training.tokenization import encode, pad
from .base import Prediction


def fit(config: Config, folder: Path, pipeline: Pipeline, rows: Rows, logger, callbacks=()) -> FitInfo:
    """Fine-tune on the texts of the training rows, and save adapter, head and tokenizer in folder/adapter."""
    tokenizer = load_tokenizer(config.model)
    data = TextDataModule(pipeline, rows, tokenizer)
    module = RobustModule(config, rows.target, data.steps_per_epoch * config.trainer.epochs)
    try:
        info = fit_module(config, folder, module, data, logger, callbacks)
    finally:
        data.stop_prefetching()
    if rank_zero_only.rank == 0:
        module.model.save_pretrained(folder / "adapter", safe_serialization=True)
        tokenizer.save_pretrained(folder / "adapter")
    return info


def load(config: Config, folder: Path, pipeline: Pipeline, rows: Rows) -> "TextTransformerPredictor":
    """Load the fine-tuned transformer of a run folder. Raises UserError if the folder has none."""
    if not (folder / "adapter").is_dir():
        raise UserError(
            f"{folder} has no trained model; train it first: python -m project train "
            f"experiment={config.experiment} method={config.method} seed={config.seed}"
        )
    model = load_adapter(base_model(config.model, rows.target, config.seed), folder / "adapter")
    model.to(device_of(config.trainer))
    return TextTransformerPredictor(config, pipeline, rows, model, load_tokenizer(config.model))


_MAX_CACHED_TEXTS = 100_000
"""Texts whose logits are cached: more than an evaluation needs, and few enough for a long-running service."""


class TextTransformerPredictor:
    """Answer from texts. The logits of a text are computed once for all records and conditions that share it."""

    def __init__(
        self, config: Config, pipeline: Pipeline, rows: Rows, model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase
    ):
        self.config, self.pipeline, self.target = config, pipeline, rows.target
        self.model, self.tokenizer = model, tokenizer
        self._logits: dict[tuple[str, ...], torch.Tensor] = {}

    def __call__(self, records: Sequence[Record], condition: Condition) -> Prediction:
        """Return the answers for records under a condition, from unperturbed texts."""
        return self.read(self.pipeline.transform(records, condition))

    def read(self, traces: list[Trace]) -> Prediction:
        """Return the answers to the texts of the traces, in the order of the traces."""
        texts = [compose(trace.parts) for trace in traces]
        if len(self._logits) > _MAX_CACHED_TEXTS:
            self._logits.clear()
        self._score([text for text in dict.fromkeys(texts) if text not in self._logits])
        logits = torch.stack([self._logits[text] for text in texts])
        target, head = self.target, self.config.model.head
        return Prediction(heads.answers(logits, target, head), heads.probabilities(logits, target, head), traces)

    @torch.inference_mode()
    def _score(self, texts: list[tuple[str, ...]]) -> None:
        """Compute and cache the logits of distinct texts, in batches of similar length."""
        encodings = encode(texts, self.tokenizer, self.config.model.max_tokens) if texts else []
        order = sorted(range(len(encodings)), key=lambda index: len(encodings[index]["input_ids"]))
        size = 4 * self.config.trainer.batch_size
        for start in range(0, len(order), size):
            indices = order[start : start + size]
            batch = pad([encodings[index] for index in indices], self.tokenizer)
            with autocast_of(self.config):
                logits = self.model(**{name: value.to(self.model.device) for name, value in batch.items()}).logits
            self._logits.update(zip((texts[index] for index in indices), logits.float().cpu(), strict=True))
