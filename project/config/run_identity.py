"""The folder, the name and the digests of a run: functions of the configuration, never of time."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from ..errors import UserError
from .schema import Config

# The digests leave out the identity of a run, its location, its logging and its hardware.
IDENTITY_KEYS = ("experiment", "method", "name", "output", "seed")
ENVIRONMENT_KEYS = (
    "store",
    "logger",
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
RENAMED = {
    "store.patience": "store.takeover_seconds",
    "alignment.facts": "alignment.min_fact_recall",
    "perturbation.place": "perturbation.stage",
    "perturbation.worst": "perturbation.num_candidates",
    "perturbation.wording": "perturbation.instruction_set",
}
"""Current names of renamed keys, by old name. The old names are still read."""
# Digests use the old names, so that the folders of earlier runs and studies are still found.
DIGEST_NAMES = {new: old for old, new in RENAMED.items()}


def flatten_keys(mapping: dict, prefix: str = "") -> dict[str, Any]:
    """Return the leaves of nested dicts by dotted key."""
    leaves = {}
    for key, value in mapping.items():
        leaves |= flatten_keys(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return leaves


def is_environment_key(key: str) -> bool:
    """Return True if a key sets the location, the logging or the hardware of a run, and may change in its folder."""
    return any(key == known or key.startswith(f"{known}.") for known in ENVIRONMENT_KEYS)


def is_evaluation_key(key: str) -> bool:
    """Return True if a key affects only the test, so that a trained run may be evaluated again with another value."""
    return key.startswith("robustness.") and not key.startswith("robustness.val_")


def run_name(method: str, config: dict, plain: dict) -> str:
    """Return the method's name, with a digest of the result-relevant keys that differ from `plain`.

    `plain` is the configuration of the method without overrides.
    """
    values, defaults = _digest_values(config), _digest_values(plain)
    changed = {key: values.get(key) for key in sorted({**defaults, **values}) if values.get(key) != defaults.get(key)}
    digest = hashlib.sha256(json.dumps(changed).encode()).hexdigest()[:6]
    return f"{method}-{digest}" if changed else method


def run_folder(config: Config) -> Path:
    """Return output/experiment/name/seed-N; experiment=paper/petfinder gives a folder in a folder.

    Raises UserError if a name cannot name a folder.
    """
    for key, name in (*(("experiment", part) for part in config.experiment.split("/")), ("name", config.name)):
        if not name or name.startswith(".") or re.search(r"[/\\\0]", name):
            raise UserError(f"{key}={name} cannot name a folder; remove path separators and the leading dot")
    return Path(config.output) / config.experiment / config.name / f"seed-{config.seed}"


def config_digest(config: dict) -> str:
    """Return the sha256, in hexadecimal digits, of the seed and of all keys that affect the results."""
    return hashlib.sha256(json.dumps({"seed": config.get("seed"), **_digest_values(config)}).encode()).hexdigest()


def differences(old: dict, new: dict) -> dict[str, str]:
    """Return the changes of the seed and of the keys that affect results: `trainer.lr` to `0.001 -> 0.01`."""
    before, after = ({"seed": side.get("seed"), **_result_values(side)} for side in (old, new))
    pairs = {key: (before.get(key, "absent"), after.get(key, "absent")) for key in {**before, **after}}
    return {key: f"{format_value(was)} -> {format_value(now)}" for key, (was, now) in pairs.items() if was != now}


def format_value(value: Any) -> str:
    """Return a value as in error messages and in the help: text without quotes, null for None."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _digest_values(mapping: dict) -> dict[str, Any]:
    return {DIGEST_NAMES.get(key, key): value for key, value in _result_values(mapping).items()}


def _result_values(mapping: dict) -> dict[str, Any]:
    """Return the values that affect results, by dotted key."""
    return {
        key: value
        for key, value in flatten_keys(mapping).items()
        if key not in IDENTITY_KEYS and not is_environment_key(key)
    }
