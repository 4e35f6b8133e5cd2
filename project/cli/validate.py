"""The verb `validate`: check a configuration and everything that it points to, without running it."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ..config.compose import check_complete, parse_bool
from ..config.run_identity import run_folder
from ..config.schema import Config, DataConfig
from ..corruption.conditions import evaluation_conditions, validation_conditions
from ..data.column_inference import column_roles, infer_columns, printable
from ..data.dataset_card import Facts, facts
from ..data.row_checks import check_images, check_rows
from ..data.rows import Rows, select_rows
from ..errors import UserError
from ..experiments.sweep_file import read_sweep
from ..experts.captioner import check_experts
from ..llm.factory import check_llm, open_llm
from ..methods.base import UNTRAINED
from ..methods.image_features import check_image
from ..pipeline.perturbation.instructions import INSTRUCTION_KINDS
from ..pipeline.text_lengths import descriptions, text_lengths
from ..training.heads import num_logits

MAX_MEASURED = 500
"""Maximum number of training rows whose texts are measured."""
MIN_FREE_BYTES = 2e9
"""Less free disk space gets a warning."""
BYTES_PER_TEXT = 4096
"""Approximate size of a stored generation with its prompt."""


@dataclass
class Findings:
    """Problems, which would stop a run, and warnings."""

    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def of(self, check: Callable, *args: Any) -> Any:
        """Return what a check returns, or None if it raises UserError, whose lines become problems."""
        try:
            return check(*args)
        except UserError as error:
            self.problems += str(error).splitlines()
            return None


def run(config: Config, args: dict[str, str]) -> int:
    """Print a summary, the warnings and the problems, one per line; return 2 if there is a problem, else 0.

    With models=false the language model, the encoder and the image expert are not checked. With `sweep` only that
    sweep file is checked. Raises UserError if models is neither true nor false, or if the sweep file is wrong.
    """
    if "sweep" in args:
        sweep = read_sweep(Path(args["sweep"]))
        varied = ", ".join(parameter.key for parameter in sweep.varied)
        print(f"{sweep.path}: {sweep.method} over {varied}; every value composes")
        return 0
    with_models = parse_bool(args, "models", True)
    findings, console = Findings(), Console(highlight=False, markup=False)
    findings.of(check_complete, config)
    findings.of(run_folder, config)
    data = _check_data(config, findings, console)
    rows = findings.of(select_rows, data) if data else None
    if rows:
        console.print(f"{data.name}: target {rows.target.kind}, scored by {rows.target.metric}")
        for table in facts(rows):
            console.print(table.title, _table(table), "", sep="\n")
        findings.warnings += check_rows(rows)
        if hasattr(config.model, "head"):
            findings.of(num_logits, rows.target, config.model.head)
        problems, warnings = check_images(rows, data)
        findings.problems += problems
        findings.warnings += warnings
    tokenizer = check_models(config, rows, findings) if with_models else None
    calls = max_calls(config, rows) if rows else 0
    if rows:
        _print_texts(config, rows, tokenizer, findings, console)
        console.print(
            f"at most {calls:,} calls of the language model, without redraws and the one-shot example; "
            "prepare dry_run=true counts the texts that the store lacks",
            soft_wrap=True,
        )
    findings.warnings += check_disk(config, calls)
    for warning in findings.warnings:
        console.print(f"warning: {warning}", soft_wrap=True)
    errors = Console(stderr=True, highlight=False, markup=False)
    for problem in findings.problems:
        errors.print(f"error: {problem}", soft_wrap=True)
    console.print(f"problems: {len(findings.problems)}, warnings: {len(findings.warnings)}")
    return 2 if findings.problems else 0


def _check_data(config: Config, findings: Findings, console: Console) -> DataConfig | None:
    """Print the roles of a table's columns, and return the data's configuration; None if the rows cannot be read."""
    if any(problem.startswith("data.") for problem in findings.problems):
        return None
    if config.data.kind != "table":
        return config.data
    roles = findings.of(column_roles, config.data)
    if not roles:
        return None
    data = infer_columns(config.data)
    title = f"{'columns' if data is config.data else 'inferred columns'} of {Path(data.path).name}"
    console.print(f"{title}\n{roles}\n", soft_wrap=True)
    return data


def _print_texts(config: Config, rows: Rows, tokenizer: Any, findings: Findings, console: Console) -> None:
    """Print the lengths of the texts and one example."""
    records = (rows.train or rows.val or rows.test)[:MAX_MEASURED]
    texts = descriptions(records, config)
    lengths, warnings = text_lengths(texts, getattr(config.model, "max_tokens", None), tokenizer)
    console.print(lengths.title, _table(lengths), "", sep="\n")
    findings.warnings += warnings
    console.print(
        f"example, row {printable(records[0].id)}, by text and table alone: {printable(texts[0]) or '(nothing)'}\n",
        soft_wrap=True,
    )


def check_models(config: Config, rows: Rows | None, findings: Findings) -> Any:
    """Check that encoder, image expert and language model can be loaded; return the tokenizer, or None."""
    from ..training.encoder import check_encoder, load_tokenizer  # imports peft, which takes a second

    tokenizer = None
    if hasattr(config.model, "encoder"):
        tokenizer = findings.of(load_tokenizer, config.model)
        if tokenizer:
            findings.of(check_encoder, config)
    if rows is None or "image" in rows.modalities:
        if hasattr(config.model, "image"):
            findings.of(check_image, config)
        else:
            findings.of(check_experts, config.experts)
    if asks_llm(config) and not any(problem.startswith("llm.") for problem in findings.problems):
        check_generation(config, findings)
    return tokenizer


def asks_llm(config: Config) -> bool:
    """Return True if any text of a run comes from the language model."""
    rewritten = config.perturbation.kind in INSTRUCTION_KINDS and config.perturbation.weight > 0
    aligned = any((config.alignment.style, config.alignment.summary, config.alignment.reasoning))
    return rewritten or aligned or config.model.kind in UNTRAINED


def check_generation(config: Config, findings: Findings) -> None:
    """Check the store and the language model, which is only needed for texts that the store lacks."""
    llm = findings.of(open_llm, config, True)
    if llm is None:
        return
    stored = bool(llm.store.mean_costs(config.llm.model))
    if not stored:
        findings.warnings.append(
            f"the store {config.store.path} has no text of {config.llm.model} yet: every text will be generated"
        )
    if not config.store.engine:
        if not stored:
            findings.problems.append(
                "store.engine=false, and the store has no text; set store.engine=true, or give store.recorded"
            )
        return
    engine = Findings()
    warning = engine.of(check_llm, config)
    findings.warnings += [warning] if warning else []
    if stored:
        findings.warnings += [f"{problem} (needed for what the store lacks)" for problem in engine.problems]
    else:
        findings.problems += engine.problems


def max_calls(config: Config, rows: Rows) -> int:
    """Return an upper bound of the language model's calls, which counts equal texts more than once."""
    alignment, perturbation = config.alignment, config.perturbation
    aligned = alignment.style * len(rows.modalities) + alignment.summary + alignment.reasoning
    rounds = perturbation.rounds if perturbation.weight and perturbation.kind != "none" else 0
    described = perturbation.stage == "described"
    rewritten = (perturbation.kind != "rules") * (len(rows.modalities) if described else 1)
    inferring = len(rows.val) * len(validation_conditions(config.robustness, rows.modalities)) + len(rows.test) * len(
        evaluation_conditions(config.robustness, rows.modalities)
    )
    if config.model.kind in UNTRAINED:
        return inferring * (1 if config.model.kind == "mllm" else aligned)
    return inferring * aligned + len(rows.train) * (aligned + rounds * (rewritten + described * aligned))


def check_disk(config: Config, calls: int) -> list[str]:
    """Return warnings about little free space on the disks of the runs and of the store."""
    warnings = []
    for key, path, need in (
        ("output", config.output, MIN_FREE_BYTES),
        ("store.path", config.store.path, max(MIN_FREE_BYTES, calls * BYTES_PER_TEXT)),
    ):
        folder = Path(path).absolute()
        while not folder.exists():
            folder = folder.parent
        free = shutil.disk_usage(folder).free
        if free < need:
            warnings.append(
                f"{key}={path}: {free / 1e9:.1f} GB are free, and {need / 1e9:.1f} GB may be needed; make "
                f"room, or give another {key}"
            )
    return warnings


def _table(facts: Facts) -> Table:
    table = Table()
    for index, name in enumerate(facts.header):
        table.add_column(name, justify="right" if index else "left")
    for line in facts.lines:
        table.add_row(*map(printable, line))
    return table
