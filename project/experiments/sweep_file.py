"""A W&B sweep file: the parameters, the search method and the metric. `wandb sweep` reads the same file.

Keys and distributions: https://docs.wandb.ai/guides/sweeps/sweep-config-keys
"""

import itertools
import math
from dataclasses import dataclass
from pathlib import Path

from ..config.compose import check_keys, current_key, load_config, read_mapping, strict_yaml
from ..config.run_identity import format_value
from ..errors import UserError, did_you_mean, with_context

_SWEEP_KEYS = (
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
_METHODS = ("grid", "random", "bayes")
_METRICS = ("val/best_score", "val/score", "val/clean", "val/drop_ratio")
"""Logged scores of the validation rows, the possible objectives. val/score is the mean score over clean and noisy
rows: with the clean score c and the mean drop ratio d of n noisy panels, c (1 - d n / (n + 1)). val/best_score is its
best value so far; the weights of that epoch are kept."""
_RANGES = {
    "uniform": float,
    "q_uniform": float,
    "log_uniform": float,
    "log_uniform_values": float,
    "q_log_uniform_values": float,
    "int_uniform": int,
}
"""Distributions with bounds `min` and `max`, and the type of their values; log_uniform's bounds are exponents of e."""
_DISTRIBUTIONS = ("constant", "categorical", *_RANGES)
_PARAMETER_KEYS = ("value", "values", "min", "max", "q", "distribution")
_HYPERBAND_KEYS = ("type", "min_iter", "max_iter", "eta", "s", "strict")


@dataclass(frozen=True)
class Parameter:
    """A configuration key with its `values`, as on a command line, or its range from `low` to `high`."""

    key: str
    values: tuple[str, ...] = ()
    low: float | int = 0
    high: float | int = 0
    step: float | int | None = None
    log: bool = False

    @property
    def ends(self) -> tuple[str, ...]:
        """All values, or both bounds: each must give a valid configuration."""
        return self.values or (format_value(self.low), format_value(self.high))


@dataclass(frozen=True)
class Sweep:
    """A sweep file; `settings`, key=value arguments of the command line, override it."""

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

    def arguments(self, values: dict[str, str]) -> list[str]:
        """Return the key=value arguments of a trial; `values` has the value of each varied parameter."""
        return [f"{parameter.key}={values.get(parameter.key, parameter.ends[0])}" for parameter in self.parameters] + [
            *self.settings
        ]

    def grid(self) -> list[dict[str, str]]:
        """Return every combination of the values of the varied parameters."""
        keys = [parameter.key for parameter in self.varied]
        return [
            dict(zip(keys, values, strict=True))
            for values in itertools.product(*(parameter.values for parameter in self.varied))
        ]


def read_sweep(path: Path, settings: list[str] = ()) -> Sweep:
    """Read a sweep file; a key in `settings` is not varied.

    Composes a configuration for every value of a parameter, and for both bounds of a range. Raises UserError, with the
    file and the key, if something is wrong.
    """
    mapping = check_keys(read_mapping(path, strict_yaml), _SWEEP_KEYS, str(path))
    method = mapping.get("method")
    if method not in _METHODS:
        raise UserError(
            f"{path}: method: {format_value(method)} is none of {', '.join(_METHODS)}"
            f"{did_you_mean(str(method), _METHODS)}"
        )
    metric, maximize = _metric(mapping.get("metric"), path)
    if not isinstance(mapping.get("parameters"), dict) or not mapping["parameters"]:
        raise UserError(f"{path}: parameters: name a key of the configuration and its values")
    fixed_keys = {current_key(setting.removeprefix("--").partition("=")[0]) for setting in settings}
    parameters = tuple(
        _parameter(str(key), value, f"{path}: parameters: {key}")
        for key, value in mapping["parameters"].items()
        if current_key(str(key)) not in fixed_keys
    )
    early = _early(mapping.get("early_terminate"), path)
    sweep = Sweep(path, method, metric, maximize, parameters, tuple(settings), early)
    if method == "grid" and (ranges := [parameter.key for parameter in parameters if not parameter.values]):
        raise UserError(f"{path}: parameters: {ranges[0]}: a grid needs values, not a range")
    for parameter in parameters:
        for value in parameter.ends:
            try:
                load_config(sweep.arguments({parameter.key: value}))
            except UserError as error:
                raise with_context(f"{path}: parameters: {parameter.key}={value}", error) from error
    return sweep


def _metric(value: object, path: Path) -> tuple[str, bool]:
    """Return the name of the metric, and whether it is maximized."""
    mapping = check_keys(value, ("name", "goal", "target"), f"{path}: metric")
    name, goal = mapping.get("name"), mapping.get("goal", "minimize")  # W&B's default goal is minimize
    if name not in _METRICS:
        raise UserError(
            f"{path}: metric.name: {format_value(name)} is not a validation metric; use one of "
            f"{', '.join(_METRICS)}{did_you_mean(str(name), _METRICS)}"
        )
    if goal not in ("minimize", "maximize"):
        raise UserError(f"{path}: metric.goal: {format_value(goal)} is neither minimize nor maximize")
    if name == "val/drop_ratio" and goal == "maximize":
        raise UserError(f"{path}: metric.goal: a drop ratio is better when it is lower; write minimize")
    return name, goal == "maximize"


def _parameter(key: str, value: object, where: str) -> Parameter:
    if isinstance(value, dict) and "parameters" in value:
        raise UserError(
            f"{where}: nested parameters cannot become key=value arguments; write the dotted key, such as trainer.lr"
        )
    mapping = check_keys(value, _PARAMETER_KEYS, where)
    for kind, needed in (("constant", "value"), ("categorical", "values")):
        if mapping.get("distribution") == kind and needed not in mapping:
            raise UserError(f"{where}: a distribution {kind} needs {needed}")
    if "value" in mapping:
        return Parameter(key, (format_value(mapping["value"]),))
    if "values" in mapping:
        if not isinstance(mapping["values"], list) or not mapping["values"]:
            raise UserError(f"{where}: values must be a list of values to try")
        return Parameter(key, tuple(format_value(item) for item in mapping["values"]))
    return _range(key, mapping, where)


def _range(key: str, mapping: dict, where: str) -> Parameter:
    low, high, step = mapping.get("min"), mapping.get("max"), mapping.get("q")
    for name, bound in (("min", low), ("max", high)):
        if isinstance(bound, bool) or not isinstance(bound, int | float) or not math.isfinite(bound):
            raise UserError(f"{where}: {name} must be a number, and is {format_value(bound)}; or write value or values")
    has_int_bounds = isinstance(low, int) and isinstance(high, int)
    kind = mapping.get("distribution", "int_uniform" if has_int_bounds else "uniform")
    if kind not in _DISTRIBUTIONS:
        raise UserError(
            f"{where}: distribution: {format_value(kind)} is none of {', '.join(_DISTRIBUTIONS)}"
            f"{did_you_mean(str(kind), _DISTRIBUTIONS)}"
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
    value_type = _RANGES[kind]
    if value_type is int and not has_int_bounds:
        raise UserError(f"{where}: int_uniform needs whole numbers for min and max")
    step = step if kind.startswith("q_") else None
    return Parameter(key, low=value_type(low), high=value_type(high), step=step, log=log)


def _early(value: object, path: Path) -> dict | None:
    """Return the checked settings of early termination; None without them."""
    if value is None:
        return None
    mapping = check_keys(value, _HYPERBAND_KEYS, f"{path}: early_terminate")
    if mapping.get("type") != "hyperband":
        raise UserError(f"{path}: early_terminate.type: {format_value(mapping.get('type'))} is not hyperband")
    for key in ("min_iter", "max_iter", "eta", "s"):
        if key in mapping and (type(mapping[key]) is not int or mapping[key] < 1):
            raise UserError(f"{path}: early_terminate.{key}: must be a whole number from 1")
    if "min_iter" not in mapping and "max_iter" not in mapping:
        raise UserError(f"{path}: early_terminate: give min_iter, or max_iter and s")
    return mapping
