"""validate: check a configuration and everything that it points to, without running it."""

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from ..config.compose import check_complete, parse_bool
from ..config.run_identity import run_folder
from ..config.schema import Config, DataConfig
from ..corruption.conditions import evaluation_conditions, validation_conditions
from ..data.column_inference import column_roles, infer_columns, printable
from ..data.dataset_card import Facts, facts
from ..data.images import ZippedImage, archive, pictures, pixels
from ..data.near_duplicates import near_copies
from ..data.record import Record
from ..data.rows import Rows, select_rows
from ..data.splits import SPLITS
from ..errors import UserError
from ..experiments.sweep_file import read_sweep
from ..experts.captioner import check_experts
from ..llm.factory import check_llm, open_llm
from ..llm.store.store import Store
from ..methods.base import UNTRAINED
from ..methods.image_features import check_image
from ..pipeline.alignment import join_parts
from ..pipeline.describe import describe
from ..pipeline.perturbation.instructions import INSTRUCTION_KINDS
from ..training.encoder import check_encoder
from ..training.heads import num_logits

FEW_ROWS = 20
"""A split with fewer rows is warned of: its scores say little."""
FEW_OF_A_CLASS = 5
"""A class with fewer training rows is warned of."""
DECODED = 200
"""Images that are decoded at most; of all others it is only seen that they are there."""
SAMPLE = 500
"""Training rows whose texts are measured at most."""
ROOM = 2e9
"""Bytes of free disk below which is warned."""
BYTES_A_TEXT = 4096
"""About what a generation takes in a store, its prompt included."""


@dataclass
class Findings:
    """What was found: problems, with which a run would fail, and warnings."""

    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def of(self, check: Callable, *given: Any) -> Any:
        """What a check returns, or None where it raises UserError, whose lines are problems."""
        try:
            return check(*given)
        except UserError as error:
            self.problems += str(error).splitlines()
            return None


def run(config: Config, args: dict[str, str]) -> int:
    """Print a summary, the warnings and the problems, a line each; 2 where there is a problem, else 0.

    models=false leaves the language model, the encoder and the image expert unlooked-at. With `sweep` that file alone
    is looked at. Raises UserError where models is neither true nor false, or the sweep file is wrong.
    """
    if "sweep" in args:
        sweep = read_sweep(Path(args["sweep"]))
        print(f"{sweep.path}: {sweep.method} over {', '.join(each.key for each in sweep.varied)}; every value composes")
        return 0
    models = parse_bool(args, "models", True)
    found, console = Findings(), Console(highlight=False, markup=False)
    found.of(check_complete, config)
    found.of(run_folder, config)
    complete = not any(problem.startswith("data.") for problem in found.problems)
    data = config.data if complete else None
    if complete and data.kind == "table":
        told = found.of(column_roles, data)
        data = infer_columns(data) if told else None
        if data:
            console.print(
                f"{'columns' if data is config.data else 'inferred columns'} of {Path(data.path).name}\n{told}\n",
                soft_wrap=True,
            )
    rows = found.of(select_rows, data) if data else None
    if rows:
        console.print(f"{data.name}: target {rows.target.kind}, scored by {rows.target.metric}")
        for table in facts(rows):
            console.print(table.title, _printed(table), "", sep="\n")
        found.warnings += check_rows(rows)
        if hasattr(config.model, "head"):
            found.of(num_logits, rows.target, config.model.head)
        check_images(rows, data, found)
    tokenizer = None
    if models:
        tokenizer = check_models(config, rows, found)
    calls = max_calls(config, rows) if rows else 0
    if rows:
        records = (rows.train or rows.val or rows.test)[:SAMPLE]
        texts = descriptions(records, config)
        most = getattr(config.model, "max_tokens", None)
        lengths, warning = text_lengths(texts, most, tokenizer)
        console.print(lengths.title, _printed(lengths), "", sep="\n")
        found.warnings += warning
        console.print(
            f"example, row {printable(records[0].id)}, by text and table alone: {printable(texts[0]) or '(nothing)'}\n",
            soft_wrap=True,
        )
        console.print(
            f"at most {calls:,} calls of the language model, besides redraws and the one-shot example; "
            "prepare dry_run=true tells what the store lacks",
            soft_wrap=True,
        )
    found.warnings += check_disk(config, calls)
    for warning in found.warnings:
        console.print(f"warning: {warning}", soft_wrap=True)
    errors = Console(stderr=True, highlight=False, markup=False)
    for problem in found.problems:
        errors.print(f"error: {problem}", soft_wrap=True)
    console.print(f"problems: {len(found.problems)}, warnings: {len(found.warnings)}")
    return 2 if found.problems else 0


def check_rows(rows: Rows) -> list[str]:
    """Warnings of the splits, the classes and the near-copies among them."""
    warnings = []
    for name in SPLITS:
        count = len(getattr(rows, name))
        if count == 0:
            warnings.append(f"no rows for {name}: a run would stop here; add rows or groups, or change data.split")
        elif count < FEW_ROWS:
            warnings.append(f"{name} has {count} rows, and its scores will say little below {FEW_ROWS}")
    if rows.train and rows.target.kind != "number":
        counts = Counter(record.target for record in rows.train)
        few = [name for name in rows.target.classes if counts[name] < FEW_OF_A_CLASS]
        if few:
            named = ", ".join(f"{printable(name)!r:.40} ({counts[name]})" for name in few[:10])
            warnings.append(
                f"{len(few)} of {len(rows.target.classes)} classes have fewer than {FEW_OF_A_CLASS} "
                f"training rows: {named}{', ...' if len(few) > 10 else ''}; merge them, or add rows"
            )
    copies = near_copies(rows)
    if copies.pairs:
        first = copies.pairs[0]
        warnings.append(
            f"{copies}, such as {first.split} row {printable(first.row)} and {printable(first.train)}; "
            "scores flatter where they are copies: drop them, or let one group hold them"
        )
    return warnings


def check_images(rows: Rows, config: DataConfig, found: Findings) -> None:
    """Whether each file is there, and whether an even sample of at most DECODED can be decoded."""
    shown = [
        (record.id, picture)
        for name in SPLITS
        for record in getattr(rows, name)
        if record.image is not None
        for picture in pictures(record.image)
    ]
    if asks_for_images(config) and not any(not isinstance(picture, str) for _, picture in shown):
        found.warnings.append(
            "images are asked for, and no row has a photo: the image modality is "
            + ("descriptions that came with the data" if shown else "missing everywhere")
        )
    if config.kind == "airbnb" and config.images is None:
        found.warnings.append("data.images names no folder: every listing goes without a picture")
    files = [(row, picture) for row, picture in shown if not isinstance(picture, str | Image.Image)]
    there = []
    for row, picture in files:
        problem = _unreachable(picture)
        if problem:
            found.problems.append(f"row {printable(row)}: {problem}")
        else:
            there.append((row, picture))
    for row, picture in there[:: -(-len(there) // DECODED) or 1]:
        try:
            pixels(picture)
        except Exception as error:  # Pillow's readers raise exceptions of many kinds on damaged files
            found.problems.append(
                f"row {printable(row)}: the image {printable(str(picture))} cannot be decoded "
                f"({printable(str(error)):.100}); replace it or take it out"
            )


def asks_for_images(config: DataConfig) -> bool:
    """Whether the configuration of the data wants pictures."""
    match config.kind:
        case "emoji":
            return True
        case "table":
            return config.image is not None
        case "petfinder":
            return config.photos != "none"
        case "airbnb":
            return config.images is not None
        case "avito":
            return config.images
    return False


def _unreachable(picture: Path | ZippedImage) -> str | None:
    """What is wrong with the place of a file, or None."""
    if isinstance(picture, Path):
        return None if picture.is_file() else f"there is no image {picture}; mend the path or add the file"
    try:
        archive(picture.archive).getinfo(picture.member)
    except KeyError:
        return f"{picture.archive} holds no {picture.member!r}; take another archive, or clear the row's image"
    except Exception as error:  # zipfile raises its own, OSError and ValueError
        return f"{picture.archive} cannot be read ({error}); fetch it again"
    return None


def check_models(config: Config, rows: Rows | None, found: Findings) -> Any:
    """Whether encoder, image expert and language model could be loaded. Returns the tokenizer, or None."""
    from ..training.encoder import load_tokenizer

    tokenizer = None
    if hasattr(config.model, "encoder"):
        tokenizer = found.of(load_tokenizer, config.model)
        if tokenizer:
            found.of(check_encoder, config)
    if rows is None or "image" in rows.modalities:
        found.of(check_image, config) if hasattr(config.model, "image") else found.of(check_experts, config.experts)
    if asks_llm(config) and not any(problem.startswith("llm.") for problem in found.problems):
        check_generation(config, found)
    return tokenizer


def asks_llm(config: Config) -> bool:
    """Whether any text of a run comes from the language model."""
    rewritten = config.perturbation.kind in INSTRUCTION_KINDS and config.perturbation.weight > 0
    aligned = any((config.alignment.style, config.alignment.summary, config.alignment.reasoning))
    return rewritten or aligned or config.model.kind in UNTRAINED


def check_generation(config: Config, found: Findings) -> None:
    """The store and the language model behind it, which is needed for nothing that the store has."""
    llm = found.of(open_llm, config, True)
    if llm is None:
        return
    stored = bool(llm.store.pace(config.llm.model))
    if not stored:
        found.warnings.append(
            f"the store {config.store.path} has no text of {config.llm.model} yet: every text will be generated"
        )
    if not config.store.engine:
        if not stored:
            found.problems.append(
                "store.engine=false, and the store has no text; set store.engine=true, or give store.recorded"
            )
        return
    engine = Findings()
    told = engine.of(check_llm, config)
    found.warnings += [told] if told else []
    if stored:
        found.warnings += [f"{problem} (needed for what the store lacks)" for problem in engine.problems]
    else:
        found.problems += engine.problems


def max_calls(config: Config, rows: Rows) -> int:
    """Upper bound of the language model's calls: texts of rows, conditions and rounds that are equal count again."""
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


def descriptions(records: Sequence[Record], config: Config) -> list[str]:
    """Each row's text as it stands before alignment, of text and table alone, so that no model is loaded."""
    blind = [replace(record, image=None) for record in records]
    with tempfile.TemporaryDirectory() as folder, Store(folder) as store:
        return [join_parts(parts) for parts in describe(blind, config.experts, store)]


def text_lengths(texts: Sequence[str], most: int | None, tokenizer: Any) -> tuple[Facts, list[str]]:
    """The lengths of the texts in tokens, or in words without a tokenizer, and a warning where some exceed `most`.

    None is for a model that reads texts of any length.
    """
    if tokenizer is None:
        unit, lengths = "words", [len(text.split()) for text in texts]
    else:
        unit = "tokens"
        lengths = [len(ids) for ids in tokenizer(list(texts), verbose=False)["input_ids"]]
    longer = 0.0 if most is None else float(np.mean(np.array(lengths) > most))
    median, high = np.quantile(lengths, (0.5, 0.95))
    title = f"Length of {len(texts)} texts before alignment, text and table alone"
    limit = "no limit" if most is None else f"longer than model.max_tokens={most}"
    table = Facts(title, ("unit", "median", "95 %", limit), [(unit, f"{median:.0f}", f"{high:.0f}", f"{longer:.1%}")])
    warning = (
        f"{longer:.1%} of the texts have more than {most} {unit} (median {median:.0f}, 95 % "
        f"{high:.0f}) and would be cut; raise model.max_tokens, or lower experts.max_words"
    )
    return table, [warning] if longer else []


def check_disk(config: Config, calls: int) -> list[str]:
    """Warnings of little room where runs and texts are kept."""
    warnings = []
    for key, path, need in (
        ("output", config.output, ROOM),
        ("store.path", config.store.path, max(ROOM, calls * BYTES_A_TEXT)),
    ):
        place = Path(path).absolute()
        while not place.exists():
            place = place.parent
        free = shutil.disk_usage(place).free
        if free < need:
            warnings.append(
                f"{key}={path}: {free / 1e9:.1f} GB are free, and {need / 1e9:.1f} GB may be needed; make "
                f"room, or give another {key}"
            )
    return warnings


def _printed(facts: Facts) -> Table:
    table = Table()
    for index, name in enumerate(facts.header):
        table.add_column(name, justify="right" if index else "left")
    for line in facts.lines:
        table.add_row(*map(printable, line))
    return table
