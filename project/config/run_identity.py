"""Which folder a run is kept in and what may change in it: a function of the configuration, never of time."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from ..errors import UserError
from .schema import Config

# Neither what a run is called nor where it is kept and what it runs on is part of its digest.
IDENTITY_KEYS = ("experiment", "method", "name", "output", "seed")
ENVIRONMENT_KEYS = (
    "store",
    "wandb",
    "trainer.accelerator",
    "trainer.devices",
    "trainer.nodes",
    "trainer.strategy",
    "trainer.device_batch_size",
    "trainer.activation_checkpointing",
    "trainer.compile",
    "trainer.checkpoint_minutes",
    "robustness.resamples",
    "llm.path",
    "llm.packages",
    "llm.install",
    "llm.threads",
    "llm.slots",
    "llm.base_url",
    "llm.served",
    "llm.key_env",
    "llm.concurrency",
    "llm.timeout",
    "llm.retries",
    "llm.price_prompt",
    "llm.price_completion",
    "llm.batch_size",
    "llm.device_map",
)


def flatten_keys(mapping: dict, prefix: str = "") -> dict[str, Any]:
    """The leaves of nested dicts by dotted key."""
    leaves = {}
    for key, value in mapping.items():
        leaves |= flatten_keys(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return leaves


def is_environment_key(key: str) -> bool:
    """Whether a key says where a run is kept or what it runs on, so that it may change within a run folder."""
    return any(key == place or key.startswith(f"{place}.") for place in ENVIRONMENT_KEYS)


def is_evaluation_key(key: str) -> bool:
    """Whether a key bears on the test alone, so that what is trained may be tested anew with another value."""
    return key.startswith("robustness.") and not key.startswith("robustness.val_")


def run_name(method: str, config: dict, plain: dict) -> str:
    """The method's name, and a digest of what bears on results and differs from `plain`, the method by itself."""
    mine, its = _bearing(config), _bearing(plain)
    changed = {key: mine.get(key) for key in sorted({**its, **mine}) if mine.get(key) != its.get(key)}
    digest = hashlib.sha256(json.dumps(changed).encode()).hexdigest()[:6]
    return f"{method}-{digest}" if changed else method


def run_folder(config: Config) -> Path:
    """Where a run is kept: output/experiment/name/seed-N; experiment=paper/petfinder is a folder in a folder.

    Raises UserError on a name that cannot name a folder.
    """
    for key, name in (*(("experiment", part) for part in config.experiment.split("/")), ("name", config.name)):
        if not name or name.startswith(".") or re.search(r"[/\\\0]", name):
            raise UserError(f"{key}={name} cannot name a folder; take out path separators and the leading dot")
    return Path(config.output) / config.experiment / config.name / f"seed-{config.seed}"


def config_digest(config: dict) -> str:
    """What names all that bears on a run's results, with its seed: a sha256, in hexadecimal digits."""
    return hashlib.sha256(json.dumps({"seed": config.get("seed"), **_bearing(config)}).encode()).hexdigest()


def differences(old: dict, new: dict) -> dict[str, str]:
    """How each key differs that bears on results, or is the seed: `trainer.lr` to `0.001 -> 0.01`."""
    before, after = ({"seed": side.get("seed"), **_bearing(side)} for side in (old, new))
    pairs = {key: (before.get(key, "absent"), after.get(key, "absent")) for key in {**before, **after}}
    return {key: f"{format_value(was)} -> {format_value(now)}" for key, (was, now) in pairs.items() if was != now}


def format_value(value: Any) -> str:
    """A value as error messages and the help show it: text as it is, null for None."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _bearing(mapping: dict) -> dict[str, Any]:
    return {
        key: value
        for key, value in flatten_keys(mapping).items()
        if key not in IDENTITY_KEYS and not is_environment_key(key)
    }
