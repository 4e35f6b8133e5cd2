"""The verb `export`: a run's transformer for others, as plain transformers or peft load it, with a model card."""

import os
import shutil
from pathlib import Path

import pandas as pd
import yaml
from rich.console import Console

from . import head
from .config import flag
from .errors import UserError
from .module import base_model, load_tokenizer, with_adapter, without_published
from .robustness.conditions import CLEAN
from .robustness.runs import Run, load_runs
from .schema import Config
from .section import name_text, number_text
from .target import Target


def run(config: Config, args: dict[str, str]) -> None:
    """Write merged weights, tokenizer and card into the new folder `output`; with adapter=true the adapter alone.

    Whole or not at all. Raises UserError where the run is unfinished or no transformer, or the folder is there.
    """
    for key in ("run", "output"):
        if key not in args:
            raise UserError(f"export: {key} is not given; python -m project export run=<folder> output=<folder>")
    folder, output, alone = Path(args["run"]), Path(args["output"]).expanduser(), flag(args, "adapter", False)
    if config.model.kind != "transformer":
        raise UserError(f"{folder} is of the method {config.method}, whose model is no transformer of texts; "
                        "predict runs it as it is")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"output={output} is there and not empty; give another folder")
    if not (folder / "results.parquet").is_file():
        raise UserError(f"{folder} has no results; finish it: python -m project evaluate run={folder}")
    (finished,) = load_runs([folder])
    aside = output.with_name(f"{output.name}.part")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        aside.mkdir(parents=True)
        _write(config, folder, finished, aside, alone)
        (aside / "README.md").write_text(card(config, finished, alone), encoding="utf-8")
        os.replace(aside, output)
    except OSError as error:
        raise UserError(f"cannot write {output}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    Console().print(f"exported {folder} to {output}", highlight=False)


def _write(config: Config, folder: Path, finished: Run, output: Path, alone: bool) -> None:
    target = _target(finished.info)
    if alone and (drawn := without_published(config.model, target)):
        raise UserError(f"{folder}: the encoder as it is published lacks {drawn[0]}, which the run drew from its seed "
                        "and an adapter does not hold; export it merged, without adapter=true")
    model = with_adapter(base_model(config.model, target, config.seed), folder / "adapter")
    if alone:
        # Else the path of the weights on this machine.
        model.peft_config["default"].base_model_name_or_path = config.model.encoder
        model.save_pretrained(output, safe_serialization=True)
        (output / "README.md").unlink(missing_ok=True)
    else:
        merged = model.merge_and_unload()
        merged.config.problem_type = "regression" if target.kind == "number" else None
        merged.save_pretrained(output, safe_serialization=True)
    tokenizer = load_tokenizer(config.model)
    tokenizer.name_or_path = config.model.encoder
    tokenizer.save_pretrained(output)


def _target(info: dict) -> Target:
    return Target(info["task"], info["constant"], tuple(info["classes"]))


def card(config: Config, finished: Run, alone: bool) -> str:
    """The model card, in Markdown with the header that the Hugging Face hub reads."""
    info = finished.info
    header = {"library_name": "peft" if alone else "transformers", "pipeline_tag": "text-classification",
              "base_model": config.model.encoder, "license": "other",
              "tags": ["text-centric", "multimodal", "robustness", config.method]}
    rows = ", ".join(f"{count} {name}" for name, count in info["rows"].items())
    return "\n".join([
        "---", yaml.safe_dump(header, sort_keys=False).strip(), "---", "",
        f"# {config.method} on {info['data']}", "",
        f"`{config.model.encoder}`, fine-tuned with LoRA (rank {config.model.lora.r}) by the method `{config.method}`, "
        f"seed {info['seed']}, on {info['data']} ({rows} rows). {_answer(config, info)} "
        f"The weights' licence is that of `{config.model.encoder}` and of the data.", "",
        "It reads the text that image, text and table were turned into, not the raw record: experts "
        f"`captioner={config.experts.captioner or 'none'}`, table as {config.experts.table}; {_aligned(config)} "
        f"A longer text is cut at {config.model.max_tokens} tokens, each piece to an equal share. Such texts are the "
        "`read` of the run's texts.parquet.", "",
        "```python", *_snippet(config, head.width(_target(info), config.model.head), alone), "```", "",
        "## Measured robustness", "",
        f"On {info['rows']['test']} test rows, with 95 % bootstrap intervals over groups; one seed. "
        f"{name_text(info['metric'])} of a constant answer: {number_text(_chance(finished))}. Drop ratio: the share of "
        "the clean score that a condition costs.", "", *_table(finished.results, info["metric"]), ""])


def _answer(config: Config, info: dict) -> str:
    if info["task"] == "number":
        return ("Its output is one number, standardised: times the standard deviation of the training targets, plus "
                f"their mean{', in the logarithm' if getattr(config.data, 'log', False) else ''}.")
    if config.model.head == "ordinal":
        return (f"Its outputs are logits of \"above class k\" for the ordered classes {', '.join(info['classes'])}, "
                "without the last.")
    return f"Its outputs are logits of {', '.join(info['classes'])}."


def _aligned(config: Config) -> str:
    stages = [name for name in ("style", "summary", "reasoning") if getattr(config.alignment, name)]
    return f"aligned by {config.llm.model} ({', '.join(stages)})." if stages else "not aligned."


def _snippet(config: Config, width: int, alone: bool) -> list[str]:
    """How the export is loaded, in Python."""
    load = "AutoModelForSequenceClassification.from_pretrained"
    loaded = [f'base = {load}("{config.model.encoder}", num_labels={width})',
              "model = PeftModel.from_pretrained(base, folder).eval()"] if alone else [f"model = {load}(folder)"]
    return [*(["from peft import PeftModel"] if alone else []),
            "from transformers import AutoModelForSequenceClassification, AutoTokenizer", "",
            'folder, text = ".", "The colour is red. A round thing."  # this folder, and what is to be judged',
            *loaded, "tokenizer = AutoTokenizer.from_pretrained(folder)",
            f'tokens = tokenizer(text, truncation=True, max_length={config.model.max_tokens}, return_tensors="pt")',
            "logits = model(**tokens).logits"]


def _chance(finished: Run) -> float:
    clean = finished.predictions[finished.predictions["condition"] == str(CLEAN)]
    return float((clean["target"] == finished.info["constant"]).mean()) if finished.info["classes"] else float("nan")


def _table(results: pd.DataFrame, metric: str) -> list[str]:
    """A row a condition: the score and the drop ratio, each with its interval, and the rows."""
    keys = ["condition", "corruption", "modality", "level", "order"]
    lines = [f"| condition | on | level | order | {name_text(metric)} | drop ratio | rows |",
             "|---|---|---|---|---|---|---|"]
    for (condition, corruption, modality, level, order), rows in results.groupby(keys, sort=False, dropna=False):
        told = rows.set_index("metric")
        if metric not in told.index:
            continue

        def cell(name: str, told: pd.DataFrame = told) -> str:
            if name not in told.index:
                return ""
            value, low, high = (number_text(told[column][name], 3) for column in ("value", "low", "high"))
            return f"{value} [{low}, {high}]"

        lines.append(f"| {corruption or condition} | {modality} | {'' if pd.isna(level) else f'{level:g}'} | "
                     f"{order.replace(',', ', ')} | {cell(metric)} | {cell('drop_ratio')} | {told['n'][metric]} |")
    return lines
