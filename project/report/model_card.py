"""The card of an exported model: what it is, what it reads, how it is loaded, and its measured robustness."""

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


def shown_name(place: str) -> str:
    """A model's name for others: a hub id or a package as it is, of a folder its own name alone."""
    local = place.startswith((".", "/", "~")) or Path(place).is_dir()
    return Path(place).expanduser().resolve().name if local else place


def model_card(config: Config, finished: Run, target: Target, alone: bool, apart: float) -> str:
    """The card in Markdown, with the header that the Hugging Face hub reads; it names no path of this machine.

    `alone` tells that the adapter is exported without its encoder, `apart` by how much a logit differs at most.
    """
    info, encoder, data = finished.info, shown_name(config.model.encoder), config.data.name
    header = {
        "library_name": "peft" if alone else "transformers",
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
            f"It reads the text that {', '.join(info.modalities)} were turned into, not the raw record: "
            f"{_experts(config, info.modalities)}{_aligned(config)}. A text over {config.model.max_tokens} tokens "
            "is cut, each of its parts to an equal share. The run's texts.parquet has such texts, as `read`.",
            "",
            "```python",
            *_snippet(config, target, encoder, alone),
            "```",
            "",
            f"Its logits differ from the run's by at most {apart:.1e} on the run's own test texts.",
            "",
            "## Licence",
            "",
            f"To be filled in: the weights derive from `{encoder}` and from the data, under the terms of both"
            f"{f' (data: {terms})' if terms else ''}.",
            "",
            "## Measured robustness",
            "",
            f"On {info.rows['test']} test rows, with 95 % bootstrap intervals over groups; one seed. "
            f"{name_text(info.metric)} of a constant answer: {number_text(_chance(finished))}. "
            "Drop ratio: the share of the clean score that is lost under a condition.",
            "",
            *_table(finished.results, info.metric),
            "",
        ]
    )


def _plain(text: str) -> str:
    """A text on one line, in which nothing is HTML."""
    return " ".join(text.split()).replace("<", "&lt;")


def _outputs(config: Config, target: Target) -> str:
    names = _plain(", ".join(target.classes))
    if target.kind == "number":
        return "Its output is one number, standardised: the code below gives it in its own unit."
    if config.model.head == "ordinal":
        return f'Its outputs are logits of "above this class" for each of the ordered classes {names} but the last.'
    return f"Its outputs are logits of the classes {names}."


def _experts(config: Config, modalities: list[str]) -> str:
    seen = "an ImageNet classifier and visual attributes" if config.experts.classifier else "visual attributes"
    said = [
        f"images by {shown_name(config.experts.captioner) if config.experts.captioner else seen}"
        if "image" in modalities
        else "",
        f"tables as {config.experts.table}" if "table" in modalities else "",
    ]
    return "".join(f"{words}, " for words in said if words)


def _aligned(config: Config) -> str:
    stages = [name for name in ("style", "summary", "reasoning") if getattr(config.alignment, name)]
    return f"aligned by {shown_name(config.llm.model)} ({', '.join(stages)})" if stages else "not aligned"


def _snippet(config: Config, target: Target, encoder: str, alone: bool) -> list[str]:
    """How the export is loaded and asked, in Python."""
    load, ordinal = "AutoModelForSequenceClassification.from_pretrained", config.model.head == "ordinal"
    labels = head.num_logits(target, config.model.head)
    loaded = (
        [
            f"base = {load}({encoder!r}, num_labels={labels})  # or the folder of that encoder",
            "model = PeftModel.from_pretrained(base, folder).eval()",
        ]
        if alone
        else [f"model = {load}(folder)"]
    )
    if target.kind == "number":
        learned = f"logits.item() * {target.scale!r} + {target.mean!r}"
        answer = [
            f"answer = {f'math.exp({learned})' if target.log else learned}",
            f"answer = min(max(answer, {target.low!r}), {target.high!r})  # the training targets' bounds",
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
        *(["from peft import PeftModel"] if alone else []),
        "from transformers import AutoModelForSequenceClassification, AutoTokenizer",
        "",
        'folder, text = ".", "The colour is red. A round thing."  # this folder, and what is to be judged',
        *loaded,
        "tokenizer = AutoTokenizer.from_pretrained(folder)",
        f'tokens = tokenizer(text, truncation=True, max_length={config.model.max_tokens}, return_tensors="pt")',
        "logits = model(**tokens).logits.detach()",
        *answer,
    ]


def _chance(finished: Run) -> float:
    clean = finished.predictions[finished.predictions["condition"] == str(CLEAN)]
    return chance(clean["target"], finished.info.constant, finished.info.metric)


def _table(results: pd.DataFrame, metric: str) -> list[str]:
    """A row a condition: the score and the drop ratio, each with its interval, and the rows."""
    keys = ["condition", "corruption", "modality", "level", "order"]
    header = ("condition", "on", "level", "order", name_text(metric), "drop ratio", "rows")
    lines = [table_line(header), table_line(["---"] * len(header))]
    for (condition, corruption, modality, level, order), rows in results.groupby(keys, sort=False, dropna=False):
        told = rows.set_index("metric")
        if metric in told.index:  # areas and breakdowns are of several levels
            lines.append(
                table_line(
                    (
                        corruption or condition,
                        modality,
                        f"{level:g}",
                        order.replace(",", ", "),
                        _cell(told, metric),
                        _cell(told, "drop_ratio"),
                        str(told["n"][metric]),
                    )
                )
            )
    return lines


def _cell(told: pd.DataFrame, metric: str) -> str:
    if metric not in told.index:
        return ""
    value, low, high = (number_text(told[column][metric]) for column in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"
