"""The card of an exported model: base model, input, loading code, and measured robustness."""

import importlib
from pathlib import Path

import pandas as pd
import yaml

from ..config.compose import to_dict
from ..config.run_identity import config_digest
from ..config.schema import Config
from ..corruption.conditions import CLEAN
from ..data.dataset_card import table_line
from ..data.target import Target
from ..evaluation.run_loading import Run
from ..metrics.scores import chance
from ..training import heads as head
from .formatting import name_text, number_text


def public_name(model: str) -> str:
    """Return a model's name without local paths: a hub id or package as it is, a folder by its last part."""
    is_local = model.startswith((".", "/", "~")) or Path(model).is_dir()
    return Path(model).expanduser().resolve().name if is_local else model


def model_card(config: Config, finished: Run, target: Target, adapter_only: bool, max_logit_diff: float) -> str:
    """Return the card in Markdown with the header of the Hugging Face hub; it has no local path.

    `adapter_only` is True if the adapter is exported without its encoder; `max_logit_diff` is the largest difference
    of a logit from the run.
    """
    info, encoder, data = finished.info, public_name(config.model.encoder), config.data.name
    header = {
        "library_name": "peft" if adapter_only else "transformers",
        "pipeline_tag": "text-classification",
        "base_model": encoder,
        "license": "other",
        "tags": ["text-centric", "multimodal", "robustness"],
        "data": data,
        "method": config.method,
        "seed": config.seed,
        "config_digest": config_digest(to_dict(config)),
    }
    rows = ", ".join(f"{count} {name}" for name, count in info.rows.items())
    terms = getattr(importlib.import_module(f"project.data.sources.{config.data.kind}"), "TERMS", None)
    return "\n".join(
        [
            "---",
            yaml.safe_dump(header, sort_keys=False, allow_unicode=True).strip(),
            "---",
            "",
            f"# {config.method} on {data}",
            "",
            f"`{encoder}`, fine-tuned with LoRA (rank {config.model.lora.r}) by the method `{config.method}`, seed "
            f"{config.seed}, on {data} ({rows} rows). The question: {_plain(config.data.question)} "
            f"{_outputs(config, target)}",
            "",
            f"Its input is a text that describes the {', '.join(info.modalities)} of a record, not the raw record: "
            f"{_experts(config, info.modalities)}{_aligned(config)}. A text of more than {config.model.max_tokens} "
            "tokens is truncated, each of its parts to an equal share. Examples: the column `read` of the run's "
            "texts.parquet.",
            "",
            "```python",
            *_snippet(config, target, encoder, adapter_only),
            "```",
            "",
            f"Its logits differ from the run's by at most {max_logit_diff:.1e} on its test texts.",
            "",
            "## Licence",
            "",
            f"To be filled in: the terms of `{encoder}` and of the data apply to the weights"
            f"{f' (data: {terms})' if terms else ''}.",
            "",
            "## Measured robustness",
            "",
            f"On {info.rows['test']} test rows, with 95 % bootstrap intervals over groups; one seed. "
            f"{name_text(info.metric)} of a constant answer: {number_text(_chance(finished))}. "
            "Drop ratio: the share of the clean performance that is lost under a condition.",
            "",
            *_table(finished.results, info.metric),
            "",
        ]
    )


def _plain(text: str) -> str:
    """Return a text on one line with escaped HTML tags."""
    return " ".join(text.split()).replace("<", "&lt;")


def _outputs(config: Config, target: Target) -> str:
    names = _plain(", ".join(target.classes))
    if target.kind == "number":
        return "Its output is one standardised number; the code below converts it to the unit of the target."
    if config.model.head == "ordinal":
        return f'Its outputs are logits of "above this class" for each of the ordered classes {names}, except the last.'
    return f"Its outputs are logits of the classes {names}."


def _experts(config: Config, modalities: list[str]) -> str:
    experts = []
    if "image" in modalities:
        attributes = (
            "an ImageNet classifier and visual attributes" if config.experts.classifier else "visual attributes"
        )
        captioner = public_name(config.experts.captioner) if config.experts.captioner else attributes
        experts.append(f"images described by {captioner}")
    if "table" in modalities:
        experts.append(f"tables as {config.experts.table}")
    return "".join(f"{expert}, " for expert in experts)


def _aligned(config: Config) -> str:
    stages = [name for name in ("style", "summary", "reasoning") if getattr(config.alignment, name)]
    return f"aligned by {public_name(config.llm.model)} ({', '.join(stages)})" if stages else "not aligned"


def _snippet(config: Config, target: Target, encoder: str, adapter_only: bool) -> list[str]:
    """Return Python code that loads the export and predicts one text."""
    load, ordinal = "AutoModelForSequenceClassification.from_pretrained", config.model.head == "ordinal"
    labels = head.num_logits(target, config.model.head)
    load_lines = (
        [
            f"base = {load}({encoder!r}, num_labels={labels})  # or the folder of that encoder",
            "model = PeftModel.from_pretrained(base, folder).eval()",
        ]
        if adapter_only
        else [f"model = {load}(folder)"]
    )
    if target.kind == "number":
        value = f"logits.item() * {target.scale!r} + {target.mean!r}"
        answer = [
            f"answer = {f'math.exp({value})' if target.log else value}",
            f"answer = min(max(answer, {target.low!r}), {target.high!r})  # the range of the training targets",
        ]
    else:
        shares = ["shares = logits.softmax(-1)"]
        if ordinal:
            shares = [
                "above = torch.cummin(logits.sigmoid(), -1).values",
                "ends = torch.ones_like(above[:, :1])",
                "shares = -torch.diff(torch.cat([ends, above, 0 * ends], -1))",
            ]
        answer = [f"classes = {list(target.classes)!r}", *shares, "answer = classes[int(shares.argmax())]"]
    return [
        *(["import math", ""] if target.log else []),
        *(["import torch"] if ordinal else []),
        *(["from peft import PeftModel"] if adapter_only else []),
        "from transformers import AutoModelForSequenceClassification, AutoTokenizer",
        "",
        'folder, text = ".", "The colour is red. A round thing."  # this folder, and the input text',
        *load_lines,
        "tokenizer = AutoTokenizer.from_pretrained(folder)",
        f'tokens = tokenizer(text, truncation=True, max_length={config.model.max_tokens}, return_tensors="pt")',
        "logits = model(**tokens).logits.detach()",
        *answer,
    ]


def _chance(finished: Run) -> float:
    clean = finished.predictions[finished.predictions["condition"] == str(CLEAN)]
    return chance(clean["target"], finished.info.constant, finished.info.metric)


def _table(results: pd.DataFrame, metric: str) -> list[str]:
    """Return one row per condition: score and drop ratio with intervals, and the number of rows."""
    keys = ["condition", "corruption", "modality", "level", "order"]
    header = ("condition", "on", "level", "order", name_text(metric), "drop ratio", "rows")
    lines = [table_line(header), table_line(["---"] * len(header))]
    for (condition, corruption, modality, level, order), rows in results.groupby(keys, sort=False, dropna=False):
        by_metric = rows.set_index("metric")
        if metric in by_metric.index:  # areas and breakdown levels have no single level
            lines.append(
                table_line(
                    (
                        corruption or condition,
                        modality,
                        f"{level:g}",
                        order.replace(",", ", "),
                        _cell(by_metric, metric),
                        _cell(by_metric, "drop_ratio"),
                        str(by_metric["n"][metric]),
                    )
                )
            )
    return lines


def _cell(by_metric: pd.DataFrame, metric: str) -> str:
    if metric not in by_metric.index:
        return ""
    value, low, high = (number_text(by_metric[column][metric]) for column in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"
