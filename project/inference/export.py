"""The verb `export`: a run's transformer for others, as plain transformers or peft load it, with a model card."""

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
from peft import PeftModel
from rich.console import Console
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerBase

from ..config.compose import parse_bool
from ..config.schema import Config
from ..corruption.conditions import CLEAN
from ..data.rows import read_rows
from ..data.target import Target
from ..errors import UserError
from ..evaluation.run_loading import load_runs
from ..pipeline.text_log import FILE
from ..report.model_card import model_card, shown_name
from ..runtime.atomic_io import atomic_directory
from ..training.encoder import base_model, load_adapter, load_tokenizer, missing_pretrained_weights

N_CHECK_TEXTS = 32
"""Test texts on which what was written is compared with the run."""
LOGIT_TOLERANCE = 1e-3
"""A larger difference of two logits is no rounding."""


def run(config: Config, args: dict[str, str]) -> None:
    """Write merged weights, tokenizer and card into the new folder `output`; with adapter=true the adapter alone.

    Whole or not at all, and only after its logits were compared with the run's. Raises UserError where the run is
    unfinished or no transformer, or the folder is there.
    """
    for key in ("run", "output"):
        if key not in args:
            raise UserError(f"export: {key} is not given; python -m project export run=<folder> output=<folder>")
    folder, output, alone = Path(args["run"]), Path(args["output"]).expanduser(), parse_bool(args, "adapter", False)
    if config.model.kind != "transformer":
        raise UserError(
            f"{folder} is of the method {config.method}, whose model is no transformer of texts; "
            "predict runs it as it is"
        )
    for name in ("results.parquet", FILE):
        if not (folder / name).is_file():
            raise UserError(f"{folder} has no {name}; finish it: python -m project evaluate run={folder}")
    with atomic_directory(output) as part:
        (finished,) = load_runs([folder])
        target = _target(config, finished.info)
        if alone and (drawn := missing_pretrained_weights(config.model, target)):
            raise UserError(
                f"{folder}: the encoder as it is published lacks {drawn[0]}, which the run drew from its "
                "seed and an adapter does not hold; export it merged, without adapter=true"
            )
        apart = _write(config, folder, target, part, alone)
        (part / "README.md").write_text(model_card(config, finished, target, alone, apart), encoding="utf-8")
    Console().print(
        f"exported {folder} to {output}; its logits differ from the run's by at most {apart:.1e}",
        highlight=False,
        markup=False,
    )


def _target(config: Config, info: dict) -> Target:
    """The target as the run learned it; how a number was standardised is told by its rows alone."""
    if info["task"] == "number":
        return read_rows(config.data).target
    return Target(info["task"], info["constant"], tuple(info["classes"]))


def _write(config: Config, folder: Path, target: Target, output: Path, alone: bool) -> float:
    """Write weights and tokenizer; returns the largest difference of their logits from the run's.

    In 32 bits, for an adapter that is added to rounder weights is rounded with them.
    """
    model, tokenizer = _model(config, folder / "adapter", target), load_tokenizer(config.model)
    told = _logits(model, tokenizer, folder, config)
    if alone:
        model.save_pretrained(output, safe_serialization=True)
        # Its encoder is the path on this machine, which peft looks into while it saves.
        kept = json.loads((output / "adapter_config.json").read_text(encoding="utf-8"))
        kept["base_model_name_or_path"] = shown_name(config.model.encoder)
        (output / "adapter_config.json").write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
        again = _model(config, output, target)
    else:
        merged = model.merge_and_unload()
        _label(merged, config, target)
        merged.save_pretrained(output, safe_serialization=True)
        again = AutoModelForSequenceClassification.from_pretrained(output, use_safetensors=True).eval()
    apart = float((_logits(again, tokenizer, folder, config) - told).abs().max())
    if not apart < LOGIT_TOLERANCE:
        raise RuntimeError(f"what was exported of {folder} answers otherwise: its logits are {apart:g} apart")
    tokenizer.name_or_path, tokenizer.model_max_length = shown_name(config.model.encoder), config.model.max_tokens
    tokenizer.save_pretrained(output)
    return apart


def _model(config: Config, adapter: Path, target: Target) -> PeftModel:
    model = replace(config.model, quantize="none")  # 4-bit weights cannot be merged without a loss
    return load_adapter(base_model(model, target, config.seed).float(), adapter)


def _label(model: torch.nn.Module, config: Config, target: Target) -> None:
    """What the outputs mean, as the pipelines of transformers read it."""
    names = list(target.classes)
    if target.kind == "number":
        model.config.problem_type, names = "regression", [getattr(config.data, "target", config.data.name)]
    elif config.model.head == "ordinal":
        model.config.problem_type, names = "multi_label_classification", [f"above {name}" for name in names[:-1]]
    model.config.id2label = dict(enumerate(names))
    model.config.label2id = {name: index for index, name in enumerate(names)}


@torch.inference_mode()
def _logits(model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, folder: Path, config: Config) -> torch.Tensor:
    """The logits of the run's first clean test texts, shape (texts, outputs)."""
    texts = pd.read_parquet(folder / FILE, filters=[("split", "==", "test"), ("condition", "==", str(CLEAN))])
    tokens = tokenizer(
        texts["read"].tolist()[:N_CHECK_TEXTS],
        truncation=True,
        max_length=config.model.max_tokens,
        padding=True,
        return_tensors="pt",
    )
    return model(**tokens).logits
