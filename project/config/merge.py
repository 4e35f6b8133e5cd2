"""Values of several layers, merged onto the dataclasses of the schema; each mistake is one line with its source."""

import ast
import types
import typing
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..errors import UserError, did_you_mean
from .constraints import check
from .run_identity import format_value
from .schema import PARTS, Config

COMMAND_LINE = "command line"


@dataclass
class Layer:
    """One source of settings: its choices of options, its values by dotted key, and the options chosen up to it."""

    where: str
    choices: dict[str, str] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)


def type_name(hint: Any) -> str:
    """Return a type as text: `one of a, b`, `int or null`, `list of float`."""
    if typing.get_origin(hint) is typing.Literal:
        return "one of " + ", ".join(map(str, typing.get_args(hint)))
    if typing.get_origin(hint) is types.UnionType:
        return f"{type_name(_plain(hint))} or null"
    if typing.get_origin(hint) is list:
        return f"list of {type_name(typing.get_args(hint)[0])}"
    if typing.get_origin(hint) is dict:
        return "keys and values"
    return {Any: "any value", str: "text"}.get(hint) or hint.__name__


def merge_layers(layers: list[Layer]) -> Config:
    """Merge the values of the layers in order, and check the result; the first `kind` of a group picks its dataclass.

    Raises UserError on an unknown key, a value of another type, a change of a kind, and what check() refuses.
    """
    config, picked = OmegaConf.structured(Config), {}
    for group, parts in PARTS.items():
        key = f"{group}.kind"
        kinds = [(layer.where, layer.values[key]) for layer in layers if key in layer.values]
        sources = [layer.where for layer in layers if any(name.startswith(f"{group}.") for name in layer.values)]
        for where, kind in kinds or [([*sources, "configuration"][0], None)]:
            if kind not in list(parts):
                raise UserError(f"{where}: {key}={format_value(kind)} must be one of {', '.join(parts)}")
            if kind != kinds[0][1]:
                raise UserError(f"{where}: {key}={kind} cannot change a kind; choose another option: {group}=...")
            config[group] = picked[group] = parts[kind].schema
    hints = _hints(Config, picked)
    for layer in layers:
        for key, value in layer.values.items():
            _set(config, hints, key, value, layer.where)
    try:
        built = _build(Config, OmegaConf.to_container(config, resolve=True), picked)
    except OmegaConfBaseException as error:
        raise UserError(f"{error.full_key}: {first_line(error)}") from error
    check(built)
    return built


def _build(cls: type, values: dict, picked: dict[str, type]) -> Any:
    # OmegaConf.to_object refuses "???", which --print-config must be able to show.
    nested = {item.name: item.type for item in fields(cls) if is_dataclass(item.type)} | picked
    return cls(**{key: _build(nested[key], value, {}) if key in nested else value for key, value in values.items()})


def _hints(cls: type, picked: dict[str, type], prefix: str = "") -> dict[str, Any]:
    """Return the type of every leaf by dotted key."""
    hints = {}
    for item in fields(cls):
        key, hint = f"{prefix}{item.name}", picked.get(item.name, item.type)
        hints |= _hints(hint, {}, f"{key}.") if is_dataclass(hint) else {key: hint}
    return hints


def _set(config: DictConfig, hints: dict[str, Any], key: str, value: Any, where: str) -> None:
    inside = [name for name in hints if name.startswith(f"{key}.")]
    if inside and value is None:
        return  # a section whose lines are all commented out
    if inside:
        raise UserError(f"{where}: {key} is a section; set one of its keys, such as {inside[-1]}")
    section = key.rpartition(".")[0]
    if _is_dict(hints.get(section)):
        hints = hints | {key: Any}
    if key not in hints:
        raise UserError(f"{where}: unknown key {key}{_suggestion(key, hints)}")
    if _is_dict(hints[key]):
        raise UserError(f"{where}: {key} is a section; set one of its keys: {key}.<key>=...")
    if where == COMMAND_LINE:
        value = _parsed(value, hints[key])
    if key == "model.lora.targets" and isinstance(value, str):
        value = [value]  # all-linear, as peft accepts it
    problem = f"{where}: {key}={format_value(value)} must be {type_name(hints[key])}"
    # YAML reads 007, 1e-4, on and no as numbers and booleans; OmegaConf would convert them to different text.
    texts = {str: [value], list[str]: value if isinstance(value, list) else []}.get(_plain(hints[key]), [])
    if any(isinstance(text, bool | int | float) for text in texts):
        raise UserError(f"{problem}; put it in quotes")
    try:
        OmegaConf.update(config, key, value)
    except OmegaConfBaseException as error:
        raise UserError(f"{where}: {key}={value} {first_line(error)}" if "${" in str(value) else problem) from error


def _suggestion(key: str, hints: dict[str, Any]) -> str:
    group, last = key.split(".")[0], key.split(".")[-1]
    for kind, part in PARTS.get(group, {}).items():
        if key in _hints(part.schema, {}, f"{group}."):
            return f"; only {group} of kind {kind} has it"
    same = [name for name in hints if name.split(".")[-1] == last]
    return f"; did you mean {same[0]}?" if same else did_you_mean(key, hints)


def _is_dict(hint: Any) -> bool:
    return typing.get_origin(hint) is dict


def _parsed(text: str, hint: Any) -> Any:
    """Return a command-line value; numbers and booleans stay text, which OmegaConf converts to the field's type."""
    if text in ("null", "None"):
        return None
    if _plain(hint) is not Any and typing.get_origin(_plain(hint)) is not list:
        return text
    try:
        value = ast.literal_eval(text)  # the lists that Python prints
        if _plain(hint) is list[str] and not all(isinstance(item, str) for item in value):
            raise ValueError("keep the items of a list of text as text")
    except (ValueError, SyntaxError, TypeError):
        try:
            value = yaml.load(text, Loader=yaml.SafeLoader if hint is Any else yaml.BaseLoader)
        except yaml.YAMLError:
            value = text
    return value if isinstance(value, list | int | float) else text


def _plain(hint: Any) -> Any:
    """Return the type without `| None`."""
    if typing.get_origin(hint) is types.UnionType:
        return next(part for part in typing.get_args(hint) if part is not type(None))
    return hint


def first_line(error: Exception) -> str:
    """Return the first line of an error's message."""
    return str(error).splitlines()[0]
