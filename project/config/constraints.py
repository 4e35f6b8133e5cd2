"""Values that have the right type and make no sense are refused before anything is read or spent."""

from dataclasses import asdict

from ..errors import UserError
from .run_identity import flatten_keys, format_value
from .schema import AlignmentConfig, Config, PerturbationConfig

BOUNDS = {
    (0.001, float("inf")): "llm.timeout trainer.checkpoint_minutes",
    (0, 1): "data.split.val data.split.test alignment.facts perturbation.level model.lora.dropout model.dropout "
    "model.noise model.drop_modality trainer.warmup experts.least_probability robustness.levels "
    "robustness.natural_levels robustness.val_levels",
    (0, float("inf")): "seed data.split.seed data.split.fold robustness.seed robustness.val_seed robustness.orders "
    "trainer.epochs trainer.lr trainer.weight_decay trainer.clip trainer.patience experts.top_k alignment.temperature "
    "model.shots perturbation.temperature perturbation.weight perturbation.consistency "
    "perturbation.ascent.step_size perturbation.ascent.radius llm.threads llm.slots llm.retries llm.price_prompt "
    "llm.price_completion store.patience",
    (1, float("inf")): "data.image_size data.limit data.split.max_train data.split.max_val data.split.max_test "
    "experts.max_words experts.caption_tokens experts.batch_size llm.context llm.concurrency llm.batch_size "
    "alignment.words alignment.attempts perturbation.attempts perturbation.rounds perturbation.worst "
    "perturbation.prompts perturbation.ascent.steps model.max_tokens model.lora.r model.lora.alpha model.width "
    "model.attempts trainer.batch_size trainer.device_batch_size trainer.nodes robustness.resamples "
    "robustness.attack_draws",
}


def check(config: Config) -> None:
    """Refuse values that have the right type and make no sense. Raises UserError."""
    values = flatten_keys(asdict(config))
    for (low, high), keys in BOUNDS.items():
        for key in keys.split():
            numbers = values.get(key) if isinstance(values.get(key), list) else [values.get(key)]
            if any(isinstance(number, int | float) and not low <= number <= high for number in numbers):
                bounds = f"in [{low}, {high}]" if high == 1 else f"at least {low}"
                raise UserError(f"{key}={format_value(values[key])} must be {bounds}")
    val, test = config.data.split.val, config.data.split.test
    if "???" not in (val, test) and val + test >= 1:
        raise UserError(f"data.split.val={val} and data.split.test={test} leave no rows for training")
    if config.robustness.seed == config.robustness.val_seed:
        raise UserError(f"robustness.val_seed={config.robustness.seed} must differ from robustness.seed")
    _check_stages(config.alignment, config.perturbation)
    if config.perturbation.kind == "freelb" and config.trainer.strategy == "fsdp":
        raise UserError(
            "trainer.strategy=fsdp divides the weights, and perturbation.kind=freelb needs them whole; "
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


def _check_stages(alignment: AlignmentConfig, perturbation: PerturbationConfig) -> None:
    if alignment.serial and not (alignment.summary and alignment.reasoning):
        raise UserError(
            "alignment.serial=true has the reasoning read the summary; set alignment.summary=true and "
            "alignment.reasoning=true"
        )
    if perturbation.kind == "freelb" and perturbation.weight:
        raise UserError(
            f"perturbation.weight={perturbation.weight} must be 0 with perturbation.kind=freelb, which "
            "reads the clean text alone"
        )
    if perturbation.worst > perturbation.rounds:
        raise UserError(
            f"perturbation.worst={perturbation.worst} must be at most perturbation.rounds="
            f"{perturbation.rounds}: the rounds are the candidates"
        )
    for key in ("worst", "consistency") if not perturbation.weight else ():
        if getattr(perturbation, key) != getattr(PerturbationConfig, key):
            raise UserError(
                f"perturbation.{key}={getattr(perturbation, key)} wants a perturbed text, which "
                "perturbation.weight=0 leaves out"
            )
