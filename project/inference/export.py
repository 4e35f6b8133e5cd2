"""Export the transformer of a run for transformers or peft, with a model card."""

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerBase

from ..config.schema import Config
from ..corruption.conditions import CLEAN
from ..data.rows import read_rows
from ..data.target import Target
from ..errors import UserError
from ..evaluation.run_info import RunInfo
from ..evaluation.run_loading import load_runs
from ..evaluation.run_status import RESULTS_FILE
from ..pipeline.text_log import TEXTS_FILE
from ..report.model_card import model_card, public_name
from ..runtime.atomic_io import atomic_directory
from ..training.encoder import base_model, load_adapter, load_tokenizer, missing_pretrained_weights

N_CHECK_TEXTS = 32
"""Number of test texts on which the export is compared with the run."""
LOGIT_TOLERANCE = 1e-3
"""Largest accepted difference of two logits; a larger one is no rounding error."""


def export(config: Config, folder: Path, output: Path, adapter_only: bool = False) -> Path:
    """Write merged weights, tokenizer and model card into the new folder `output`, and return it.

    With `adapter_only` the adapter and the head are written without the encoder, as peft loads them. The folder is
    written atomically, and only if its logits equal those of the run. Raises UserError if the run is unfinished or no
    transformer, if the folder exists and is not empty, or if an adapter would not hold all trained weights.
    """
    if config.model.kind != "transformer":
        raise UserError(
            f"{folder} is of the method {config.method}, whose model is no transformer of texts; "
            "use python -m project predict instead"
        )
    for name in (RESULTS_FILE, TEXTS_FILE):
        if not (folder / name).is_file():
            raise UserError(f"{folder} has no {name}; finish it: python -m project evaluate run={folder}")
    with atomic_directory(output) as part:
        (run,) = load_runs([folder])
        target = _target(config, run.info)
        if adapter_only and (missing := missing_pretrained_weights(config.model, target)):
            raise UserError(
                f"{folder}: the published encoder lacks {missing[0]}, which the run initialized randomly and an "
                "adapter does not hold; export it merged, without adapter=true"
            )
        max_logit_diff = _write(config, folder, target, part, adapter_only)
        card = model_card(config, run, target, adapter_only, max_logit_diff)
        (part / "README.md").write_text(card, encoding="utf-8")
    return output


def _target(config: Config, info: RunInfo) -> Target:
    """Return the target of the training; the standardisation of a number follows from the rows only."""
    if info.task == "number":
        return read_rows(config.data).target
    return Target(info.task, info.constant, tuple(info.classes))


def _write(config: Config, folder: Path, target: Target, output: Path, adapter_only: bool) -> float:
    """Write weights and tokenizer; return the largest difference of their logits from the run's.

    In 32 bits, since merging an adapter into weights of lower precision would round it.
    """
    model, tokenizer = _model(config, folder / "adapter", target), load_tokenizer(config.model)
    run_logits = _logits(model, tokenizer, folder, config)
    if adapter_only:
        model.save_pretrained(output, safe_serialization=True)
        # peft needs the encoder's local path while it saves; the exported file must not contain it.
        adapter_config = json.loads((output / "adapter_config.json").read_text(encoding="utf-8"))
        adapter_config["base_model_name_or_path"] = public_name(config.model.encoder)
        (output / "adapter_config.json").write_text(json.dumps(adapter_config, indent=2) + "\n", encoding="utf-8")
        exported = _model(config, output, target)
    else:
        merged = model.merge_and_unload()
        _label(merged, config, target)
        merged.save_pretrained(output, safe_serialization=True)
        exported = AutoModelForSequenceClassification.from_pretrained(
            output, use_safetensors=True, trust_remote_code=False
        ).eval()
    max_logit_diff = float((_logits(exported, tokenizer, folder, config) - run_logits).abs().max())
    if not max_logit_diff < LOGIT_TOLERANCE:
        raise RuntimeError(f"the export of {folder} differs from the run: its logits are {max_logit_diff:g} apart")
    tokenizer.name_or_path, tokenizer.model_max_length = public_name(config.model.encoder), config.model.max_tokens
    tokenizer.save_pretrained(output)
    return max_logit_diff


def _model(config: Config, adapter: Path, target: Target) -> PeftModel:
    model = replace(config.model, quantize="none")  # 4-bit weights cannot be merged without a loss
    return load_adapter(base_model(model, target, config.seed).float(), adapter)


def _label(model: torch.nn.Module, config: Config, target: Target) -> None:
    """Name the outputs in the model's configuration, as the pipelines of transformers read them."""
    names = list(target.classes)
    if target.kind == "number":
        model.config.problem_type, names = "regression", [getattr(config.data, "target", config.data.name)]
    elif config.model.head == "ordinal":
        model.config.problem_type, names = "multi_label_classification", [f"above {name}" for name in names[:-1]]
    model.config.id2label = dict(enumerate(names))
    model.config.label2id = {name: index for index, name in enumerate(names)}


@torch.inference_mode()
def _logits(model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, folder: Path, config: Config) -> torch.Tensor:
    """Return the logits of the first clean test texts of the run, with shape (texts, outputs)."""
    texts = pd.read_parquet(folder / TEXTS_FILE, filters=[("split", "==", "test"), ("condition", "==", str(CLEAN))])
    tokens = tokenizer(
        texts["read"].tolist()[:N_CHECK_TEXTS],
        truncation=True,
        max_length=config.model.max_tokens,
        padding=True,
        return_tensors="pt",
    )
    return model(**tokens).logits
