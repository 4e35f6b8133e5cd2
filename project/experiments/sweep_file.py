"""A W&B sweep file: what is varied, how it is searched, and by which score. `wandb sweep` reads the same file.

Keys and distributions: https://docs.wandb.ai/guides/sweeps/sweep-config-keys
"""

import itertools
import math
from dataclasses import dataclass
from pathlib import Path

from ..config.compose import check_keys, current_key, load_config, read_mapping, strict_yaml
from ..config.run_identity import format_value
from ..errors import UserError, did_you_mean, with_context

KEYS = (
    "program",
    "name",
    "description",
    "project",
    "entity",
    "method",
    "metric",
    "parameters",
    "command",
    "early_terminate",
    "run_cap",
)
METHODS = ("grid", "random", "bayes")
METRICS = ("val/best_score", "val/score", "val/clean", "val/drop_ratio")
"""Scores of the validation rows that a training logs; no other may be an objective. val/score is the mean score over
clean and noisy rows: with the clean score c and the mean drop ratio d of n noisy panels, c (1 - d n / (n + 1)).
val/best_score is the best of it up to an epoch, whose weights are kept."""
RANGES = {
    "uniform": float,
    "q_uniform": float,
    "log_uniform": float,
    "log_uniform_values": float,
    "q_log_uniform_values": float,
    "int_uniform": int,
}
"""Distributions with bounds `min` and `max`, with the type of their values; log_uniform's bounds are exponents of e."""
DISTRIBUTIONS = ("constant", "categorical", *RANGES)
PARAMETER_KEYS = ("value", "values", "min", "max", "q", "distribution")
HYPERBAND_KEYS = ("type", "min_iter", "max_iter", "eta", "s", "strict")


@dataclass(frozen=True)
class Parameter:
    """A key and what it may be: `values`, as a command line has them, or from `low` to `high` where these are set."""

    key: str
    values: tuple[str, ...] = ()
    low: float | int = 0
    high: float | int = 0
    step: float | int | None = None
    log: bool = False

    @property
    def ends(self) -> tuple[str, ...]:
        """All values, or both bounds: what must make a configuration."""
        return self.values or (format_value(self.low), format_value(self.high))


@dataclass(frozen=True)
class Sweep:
    """What a sweep file says, with `settings` over it: key=value of the command line."""

    path: Path
    method: str
    metric: str
    maximize: bool
    parameters: tuple[Parameter, ...]
    settings: tuple[str, ...]
    early: dict | None

    @property
    def varied(self) -> list[Parameter]:
        """The parameters with more than one value."""
        return [parameter for parameter in self.parameters if len(parameter.values) != 1]

    def arguments(self, chosen: dict[str, str]) -> list[str]:
        """The key=value arguments of a trial; `chosen` has the value of each varied parameter."""
        return [f"{parameter.key}={chosen.get(parameter.key, parameter.ends[0])}" for parameter in self.parameters] + [
            *self.settings
        ]

    def grid(self) -> list[dict[str, str]]:
        """Every combination of the varied parameters' values."""
        keys = [parameter.key for parameter in self.varied]
        return [
            dict(zip(keys, values, strict=True))
            for values in itertools.product(*(parameter.values for parameter in self.varied))
        ]


def read_sweep(path: Path, settings: list[str] = ()) -> Sweep:
    """The sweep of a file; a key that `settings` has is not varied.

    A configuration is composed for every value of a parameter, and for both ends of a range. Raises UserError, which
    names the file and the key.
    """
    said = check_keys(read_mapping(path, strict_yaml), KEYS, str(path))
    method = said.get("method")
    if method not in METHODS:
        raise UserError(
            f"{path}: method: {format_value(method)} is none of {', '.join(METHODS)}"
            f"{did_you_mean(str(method), METHODS)}"
        )
    metric, maximize = _metric(said.get("metric"), path)
    if not isinstance(said.get("parameters"), dict) or not said["parameters"]:
        raise UserError(f"{path}: parameters: name a key of the configuration and its values")
    given = {current_key(setting.removeprefix("--").partition("=")[0]) for setting in settings}
    parameters = tuple(
        _parameter(str(key), value, f"{path}: parameters: {key}")
        for key, value in said["parameters"].items()
        if current_key(str(key)) not in given
    )
    early = _early(said.get("early_terminate"), path)
    sweep = Sweep(path, method, metric, maximize, parameters, tuple(settings), early)
    if method == "grid" and (ranges := [parameter.key for parameter in parameters if not parameter.values]):
        raise UserError(f"{path}: parameters: {ranges[0]}: a grid wants values, not a range")
    for parameter in parameters:
        for value in parameter.ends:
            try:
                load_config(sweep.arguments({parameter.key: value}))
            except UserError as error:
                raise with_context(f"{path}: parameters: {parameter.key}={value}", error) from error
    return sweep


def _metric(said: object, path: Path) -> tuple[str, bool]:
    mapping = check_keys(said, ("name", "goal", "target"), f"{path}: metric")
    name, goal = mapping.get("name"), mapping.get("goal", "minimize")  # W&B minimizes where no goal is given
    if name not in METRICS:
        raise UserError(
            f"{path}: metric.name: {format_value(name)} is not logged of validation rows; there are "
            f"{', '.join(METRICS)}{did_you_mean(str(name), METRICS)}"
        )
    if goal not in ("minimize", "maximize"):
        raise UserError(f"{path}: metric.goal: {format_value(goal)} is neither minimize nor maximize")
    if name == "val/drop_ratio" and goal == "maximize":
        raise UserError(f"{path}: metric.goal: a drop ratio is better when it is lower; write minimize")
    return name, goal == "maximize"


def _parameter(key: str, said: object, where: str) -> Parameter:
    if isinstance(said, dict) and "parameters" in said:
        raise UserError(
            f"{where}: nested parameters make no key=value arguments; write the dotted key, such as trainer.lr"
        )
    said = check_keys(said, PARAMETER_KEYS, where)
    for kind, needed in (("constant", "value"), ("categorical", "values")):
        if said.get("distribution") == kind and needed not in said:
            raise UserError(f"{where}: a distribution {kind} wants {needed}")
    if "value" in said:
        return Parameter(key, (format_value(said["value"]),))
    if "values" in said:
        if not isinstance(said["values"], list) or not said["values"]:
            raise UserError(f"{where}: values must be a list of values to try")
        return Parameter(key, tuple(format_value(value) for value in said["values"]))
    return _range(key, said, where)


def _range(key: str, said: dict, where: str) -> Parameter:
    low, high, step = said.get("min"), said.get("max"), said.get("q")
    for name, bound in (("min", low), ("max", high)):
        if isinstance(bound, bool) or not isinstance(bound, int | float) or not math.isfinite(bound):
            raise UserError(f"{where}: {name} must be a number, and is {format_value(bound)}; or write value or values")
    whole = isinstance(low, int) and isinstance(high, int)
    kind = said.get("distribution", "int_uniform" if whole else "uniform")
    if kind not in DISTRIBUTIONS:
        raise UserError(
            f"{where}: distribution: {format_value(kind)} is none of {', '.join(DISTRIBUTIONS)}"
            f"{did_you_mean(str(kind), DISTRIBUTIONS)}"
        )
    if kind.startswith("q_") and step is None:
        step = 1
    if step is not None and (isinstance(step, bool) or not isinstance(step, int | float) or not step > 0):
        raise UserError(f"{where}: q must be a number above 0, and is {format_value(step)}")
    if low >= high:
        raise UserError(f"{where}: min={format_value(low)} must be under max={format_value(high)}")
    log = "log" in kind
    if kind == "log_uniform":
        low, high = math.exp(low), math.exp(high)
    if log and low <= 0:
        raise UserError(f"{where}: min={format_value(low)} has no logarithm; write a number above 0")
    number = RANGES[kind]
    if number is int and not whole:
        raise UserError(f"{where}: int_uniform wants whole numbers for min and max")
    return Parameter(key, low=number(low), high=number(high), step=step if kind.startswith("q_") else None, log=log)


def _early(said: object, path: Path) -> dict | None:
    if said is None:
        return None
    said = check_keys(said, HYPERBAND_KEYS, f"{path}: early_terminate")
    if said.get("type") != "hyperband":
        raise UserError(f"{path}: early_terminate.type: {format_value(said.get('type'))} is not hyperband")
    for key in ("min_iter", "max_iter", "eta", "s"):
        if key in said and (type(said[key]) is not int or said[key] < 1):
            raise UserError(f"{path}: early_terminate.{key}: must be a whole number from 1")
    if "min_iter" not in said and "max_iter" not in said:
        raise UserError(f"{path}: early_terminate: give min_iter, or max_iter and s")
    return said
