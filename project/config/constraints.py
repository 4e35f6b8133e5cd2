"""Checks of values that have the right type but make no sense, before anything is read or generated."""

from collections.abc import Iterator
from dataclasses import Field, fields, is_dataclass
from typing import Any

from ..errors import UserError
from .registry import bounds_text
from .run_identity import format_value
from .schema import AlignmentConfig, Config, PerturbationConfig


def check(config: Config) -> None:
    """Refuse values out of bounds and settings that exclude each other. Raises UserError."""
    for key, item, value in _leaves(config):
        low, high = item.metadata.get("minimum", float("-inf")), item.metadata.get("maximum", float("inf"))
        numbers = value if isinstance(value, list) else [value]
        if item.metadata and any(isinstance(number, int | float) and not low <= number <= high for number in numbers):
            raise UserError(f"{key}={format_value(value)} must be {bounds_text(item.metadata)}")
    for name in ("levels", "natural_levels", "val_levels"):
        levels = getattr(config.robustness, name)
        if len(set(levels)) < len(levels):
            raise UserError(f"robustness.{name}={format_value(levels)} lists a level twice; remove the duplicate")
    val, test = config.data.split.val, config.data.split.test
    if "???" not in (val, test) and val + test >= 1:
        raise UserError(f"data.split.val={val} and data.split.test={test} leave no rows for training")
    if config.robustness.seed == config.robustness.val_seed:
        raise UserError(f"robustness.val_seed={config.robustness.seed} must differ from robustness.seed")
    _check_stages(config.alignment, config.perturbation)
    if config.perturbation.kind == "freelb" and config.trainer.strategy == "fsdp":
        raise UserError(
            "perturbation.kind=freelb needs the full weights, which trainer.strategy=fsdp divides; "
            "choose trainer.strategy=ddp"
        )
    if config.perturbation.kind == "freelb" and config.trainer.compile:
        raise UserError(
            "trainer.compile=true would miss the displaced embeddings of perturbation.kind=freelb; set "
            "trainer.compile=false"
        )
    _check_precision(config)


def _check_precision(config: Config) -> None:
    dtype, quantize = getattr(config.model, "dtype", None), getattr(config.model, "quantize", "none")
    if dtype and config.trainer.precision in ("bf16-true", "16-true"):
        raise UserError(
            f"trainer.precision={config.trainer.precision} trains adapters and head in half precision, which loses "
            "their small updates; set trainer.precision=bf16-mixed, and model.dtype=bfloat16 for a frozen base in "
            "half precision"
        )
    if config.trainer.strategy == "fsdp" and (dtype == "bfloat16" or quantize != "none"):
        raise UserError(
            "trainer.strategy=fsdp divides weights of one type; set model.dtype=float32 and model.quantize=none, or "
            "trainer.strategy=ddp"
        )


def _leaves(part: Any, prefix: str = "") -> Iterator[tuple[str, Field, Any]]:
    """Yield (dotted key, dataclass field, value) for each leaf."""
    for item in fields(part):
        value = getattr(part, item.name)
        if is_dataclass(value):
            yield from _leaves(value, f"{prefix}{item.name}.")
        else:
            yield f"{prefix}{item.name}", item, value


def _check_stages(alignment: AlignmentConfig, perturbation: PerturbationConfig) -> None:
    if alignment.serial and not (alignment.summary and alignment.reasoning):
        raise UserError(
            "alignment.serial=true makes the reasoning read the summary; set alignment.summary=true and "
            "alignment.reasoning=true"
        )
    if perturbation.kind == "freelb" and perturbation.weight:
        raise UserError(
            f"perturbation.weight={perturbation.weight} must be 0 with perturbation.kind=freelb, which "
            "reads only the clean text"
        )
    if perturbation.num_candidates > perturbation.rounds:
        raise UserError(
            f"perturbation.num_candidates={perturbation.num_candidates} must be at most perturbation.rounds="
            f"{perturbation.rounds}: the rounds are the candidates"
        )
    for key in ("num_candidates", "consistency") if not perturbation.weight else ():
        if getattr(perturbation, key) != getattr(PerturbationConfig, key):
            raise UserError(
                f"perturbation.{key}={getattr(perturbation, key)} needs a perturbed text, and "
                "perturbation.weight=0 has none"
            )
