"""The configuration: composed of conf/, typed by schema.py, overridden by key=value.

Options are chosen in this order, the later one winning: config.yaml, experiment, method, debug, command line.
Values are then merged in this order: the chosen option of each group, config.yaml, method, experiment, debug,
command line. `data` and `llm` are unions: the chosen option's `kind` picks the dataclass. What config.yaml, a method
or an experiment says under a union belongs to the option that was chosen when that layer was read, and is dropped
when a later layer chooses another; what debug says there fits any option, unless debug chooses one itself.
"""

import ast
import os
import re
import types
import typing
from collections.abc import Callable, Collection, Iterable
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..errors import UserError, did_you_mean
from .constraints import check
from .run_identity import flatten_keys, format_value, is_environment_key, is_evaluation_key, run_name
from .schema import KINDS, Config

CONF = Path(os.environ.get("TCR_CONF") or Path(__file__).parents[2] / "conf")
GROUPS = ("data", "experts", "llm", "alignment", "perturbation", "model", "trainer", "robustness")
COMMAND_LINE = "command line"
NO_EXPERIMENT = "default"  # conf/config.yaml alone; the word still names the folder of the outputs


@dataclass
class Layer:
    """One source of settings: the options it chooses, its values by dotted key, and the options in force with it."""

    where: str
    choices: dict[str, str] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)


def load_config(args: list[str], root: Path = CONF) -> Config:
    """The configuration that key=value arguments make of the folder `root`, checked and named. Raises UserError."""
    config = _compose(args, root)
    if config.name is None:
        plain = _compose([f"experiment={config.experiment}", f"method={config.method}"], root)
        config.name = run_name(config.method, to_dict(config), to_dict(plain))
    return config


def run_config(folder: str | Path, args: Iterable[str] = (), root: Path = CONF) -> Config:
    """The configuration of a run folder. Raises UserError.

    args may set the keys that of_environment and of_test name, and choose another option of llm, with its keys.
    """
    path, command = Path(folder) / "config.yaml", _command_line(args)
    llm = command.choices.get("llm")
    for key in [*command.choices, *command.values]:
        if not (is_environment_key(key) or is_evaluation_key(key) or llm and key.split(".")[0] == "llm"):
            raise UserError(f"{COMMAND_LINE}: {key} cannot be given beside run={folder}, which settles it")
    if not path.is_file():
        raise UserError(f"{folder} is not a run folder: it has no config.yaml")
    mapping = read_mapping(path, yaml.safe_load)
    if llm is None:
        return from_dict(mapping, str(path), args)
    run = Layer(str(path), values={key: _escaped(value) for key, value in flatten_keys(mapping | {"llm": {}}).items()})
    return _typed([_option(root, "llm", llm, (), "llm."), run, command])


def from_dict(mapping: dict, where: str = "configuration", args: Iterable[str] = ()) -> Config:
    """The inverse of to_dict, with key=value arguments over it. Raises UserError on unknown keys and wrong types."""
    values = {key: _escaped(value) for key, value in flatten_keys(mapping).items()}
    return _typed([Layer(where, values=values), _command_line(args)])


def to_dict(config: Config) -> dict:
    """The configuration as nested dicts, lists and scalars."""
    return asdict(config)


def to_yaml(config: Config) -> str:
    """The resolved configuration as YAML, in the order of the schema; reading it gives an equal configuration."""
    mapping = to_dict(config)
    text = yaml.safe_dump(mapping, sort_keys=False, allow_unicode=True, width=120)
    # PyYAML folds some line separators of Unicode into blanks, unless it escapes all that is not ASCII.
    return text if yaml.safe_load(text) == mapping else yaml.safe_dump(mapping, sort_keys=False, width=120)


def check_complete(config: Config) -> None:
    """Refuse a configuration in which something is still to be given. Raises UserError, a line a key."""
    missing = [key for key, value in flatten_keys(to_dict(config)).items() if value == "???"]
    if missing:
        raise UserError("\n".join(f"{key} is not set; give {key}=..." for key in missing))


def parse_bool(args: dict[str, str], key: str, default: bool) -> bool:
    """A verb's own argument that is true or false. Raises UserError."""
    word = args.get(key, format_value(default)).lower()
    if word not in ("true", "false"):
        raise UserError(f"{key}={word}: give true or false")
    return word == "true"


def type_name(hint: Any) -> str:
    """A type in words: `one of a, b`, `int or null`, `list of float`."""
    if typing.get_origin(hint) is typing.Literal:
        return "one of " + ", ".join(map(str, typing.get_args(hint)))
    if typing.get_origin(hint) is types.UnionType:
        return f"{type_name(_plain(hint))} or null"
    if typing.get_origin(hint) is list:
        return f"list of {type_name(typing.get_args(hint)[0])}"
    return {Any: "any value", str: "text"}.get(hint) or hint.__name__


def _compose(args: list[str], root: Path) -> Config:
    command = _command_line(args)
    base = _layer(root, "config.yaml", (*GROUPS, "experiment", "method"))
    picks = {**base.choices, **command.choices}
    name = picks.get("experiment") or NO_EXPERIMENT
    experiment = Layer("") if name == NO_EXPERIMENT else _option(root, "experiment", name, (*GROUPS, "method"))
    picks = {**base.choices, **experiment.choices, **command.choices}
    method = _option(root, "method", picks.get("method", Config.method), GROUPS)
    debug = _option(root, "debug", picks["debug"], GROUPS) if picks.get("debug") else Layer("")
    base.values |= {"experiment": name, "method": picks.get("method", Config.method)}
    final: dict[str, str] = {}
    for layer in (base, experiment, method, debug, command):
        final = {**final, **{group: option for group, option in layer.choices.items() if group in GROUPS}}
        layer.options = final
    debug.options = {**final, **debug.choices}

    options = [_option(root, group, option, (), f"{group}.") for group, option in final.items()]
    layers = [*options, base, method, experiment, debug, command]
    for layer in layers:
        dropped = {group for group in KINDS if layer.options.get(group) != final.get(group)} if layer.options else ()
        layer.values = {key: value for key, value in layer.values.items() if key.split(".")[0] not in dropped}
    return _typed(layers)


def _option(root: Path, group: str, option: str, choosable: tuple[str, ...], prefix: str = "") -> Layer:
    there = sorted(path.relative_to(root / group).with_suffix("").as_posix() for path in (root / group).rglob("*.yaml"))
    if option not in there:  # which also refuses whatever is no plain file name
        raise UserError(
            f"{group}={option}: {root / group} has {', '.join(there) or 'no option'}{did_you_mean(option, there)}"
        )
    return _layer(root, f"{group}/{option}.yaml", choosable, prefix)


def _layer(root: Path, file: str, choosable: tuple[str, ...], prefix: str = "") -> Layer:
    path = root / file
    if not path.is_file():
        raise UserError(f"{path} is missing; the environment variable TCR_CONF names the folder of the configuration")
    values = read_mapping(path, strict_yaml)
    defaults = values.pop("defaults", None) or []
    if not isinstance(defaults, list) or not all(isinstance(item, dict) and len(item) == 1 for item in defaults):
        raise UserError(f"{path}: defaults must be a list of lines such as `- data: emoji`")
    choices = {str(key): str(option or "") for item in defaults for key, option in item.items()}
    choices |= {key: str(values.pop(key) or "") for key in ("experiment", "method") if key in values}
    for key in choices:
        if key not in choosable:
            raise UserError(f"{path}: {key} cannot be chosen here{did_you_mean(key, choosable)}")
    return Layer(str(path), choices, flatten_keys(values, prefix))


def strict_yaml(text: str) -> Any:
    """Parsed by OmegaConf, which refuses a key that is written twice, where PyYAML takes the last."""
    return OmegaConf.to_container(OmegaConf.create(text))


def read_mapping(path: Path, parse: Callable[[str], Any]) -> dict:
    """The keys and values of a file. Raises UserError where it cannot be read, with the line where there is one."""
    try:
        mapping = parse(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, OmegaConfBaseException, OSError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}:" if mark else ""
        raise UserError(f"{path}:{line} {getattr(error, 'problem', None) or _first_line(error)}") from error
    if not isinstance(mapping, dict):
        raise UserError(f"{path}: must be keys and values")
    return mapping


def check_keys(mapping: object, keys: Collection[str], where: str) -> dict:
    """The mapping. Raises UserError, which begins with `where`, where it is none or has other keys."""
    if not isinstance(mapping, dict):
        raise UserError(f"{where}: must be keys and values")
    for key in mapping:
        if key not in keys:
            raise UserError(f"{where}: unknown key {key}; there are {', '.join(keys)}{did_you_mean(str(key), keys)}")
    return mapping


def _command_line(args: Iterable[str]) -> Layer:
    layer = Layer(COMMAND_LINE)
    for arg in args:
        key, equals, value = arg.removeprefix("--").partition("=")
        if not (key and equals):
            raise UserError(f"{COMMAND_LINE}: {arg} is not of the form key=value")
        if key in (*GROUPS, "experiment", "method", "debug"):
            layer.choices[key] = "" if value in ("null", "None") else value
        else:
            layer.values[key] = value
    return layer


def _typed(layers: list[Layer]) -> Config:
    """The layers' values merged in order onto dataclasses; the first `kind` of a union picks its dataclass."""
    config, picked = OmegaConf.structured(Config), {}
    for group, classes in KINDS.items():
        key = f"{group}.kind"
        kinds = [(layer.where, layer.values[key]) for layer in layers if key in layer.values]
        givers = [layer.where for layer in layers if any(name.startswith(f"{group}.") for name in layer.values)]
        for where, kind in kinds or [([*givers, "configuration"][0], None)]:
            if kind not in list(classes):
                raise UserError(f"{where}: {key}={format_value(kind)} must be one of {', '.join(classes)}")
            if kind != kinds[0][1]:
                raise UserError(f"{where}: {key}={kind} cannot change a kind; choose another option: {group}=...")
            config[group] = picked[group] = classes[kind]
    hints = _hints(Config, picked)
    for layer in layers:
        for key, value in layer.values.items():
            _set(config, hints, key, value, layer.where)
    try:
        built = _build(Config, OmegaConf.to_container(config, resolve=True), picked)
    except OmegaConfBaseException as error:
        raise UserError(f"{error.full_key}: {_first_line(error)}") from error
    check(built)
    return built


def _build(cls: type, values: dict, picked: dict[str, type]) -> Any:
    # OmegaConf.to_object refuses "???", which --print-config must be able to show.
    nested = {item.name: item.type for item in fields(cls) if is_dataclass(item.type)} | picked
    return cls(**{key: _build(nested[key], value, {}) if key in nested else value for key, value in values.items()})


def _hints(cls: type, picked: dict[str, type], prefix: str = "") -> dict[str, Any]:
    """The type of every leaf by dotted key."""
    hints = {}
    for item in fields(cls):
        key, hint = f"{prefix}{item.name}", picked.get(item.name, item.type)
        hints |= _hints(hint, {}, f"{key}.") if is_dataclass(hint) else {key: hint}
    return hints


def _set(config: DictConfig, hints: dict[str, Any], key: str, value: Any, where: str) -> None:
    inside = [name for name in hints if name.startswith(f"{key}.")]
    if inside and value is None:
        return  # a section of a file in which every line is commented out
    if inside:
        raise UserError(f"{where}: {key} is a section; set one of its keys, such as {inside[-1]}")
    if key not in hints:
        group, last = key.split(".")[0], key.split(".")[-1]
        kinds = [kind for kind, cls in KINDS.get(group, {}).items() if key in _hints(cls, {}, f"{group}.")]
        same = [name for name in hints if name.split(".")[-1] == last]
        near = f"; did you mean {same[0]}?" if same else did_you_mean(key, hints)
        raise UserError(
            f"{where}: unknown key {key}" + (f"; only {group} of kind {kinds[0]} has it" if kinds else near)
        )
    if where == COMMAND_LINE:
        value = _parsed(value, hints[key])
    if key == "model.lora.targets" and isinstance(value, str):
        value = [value]  # all-linear, as peft takes it
    problem = f"{where}: {key}={format_value(value)} must be {type_name(hints[key])}"
    # YAML reads 007, 1e-4, on and no as something else than text; OmegaConf would turn them into other text.
    texts = {str: [value], list[str]: value if isinstance(value, list) else []}.get(_plain(hints[key]), [])
    if any(isinstance(text, bool | int | float) for text in texts):
        raise UserError(f"{problem}; put it in quotes")
    try:
        OmegaConf.update(config, key, value)
    except OmegaConfBaseException as error:
        raise UserError(f"{where}: {key}={value} {_first_line(error)}" if "${" in str(value) else problem) from error


def _parsed(text: str, hint: Any) -> Any:
    """What was typed, as a value; numbers and truth values stay text, which OmegaConf converts to the field's type."""
    if text in ("null", "None"):
        return None
    if _plain(hint) is not Any and typing.get_origin(_plain(hint)) is not list:
        return text
    try:
        value = ast.literal_eval(text)  # the lists that Python prints
        if _plain(hint) is list[str] and not all(isinstance(item, str) for item in value):
            raise ValueError("the items of a list of text stay as they were typed")
    except (ValueError, SyntaxError, TypeError):
        try:
            value = yaml.load(text, Loader=yaml.SafeLoader if hint is Any else yaml.BaseLoader)
        except yaml.YAMLError:
            value = text
    return value if isinstance(value, list | int | float) else text


def _plain(hint: Any) -> Any:
    """The type without `| None`."""
    if typing.get_origin(hint) is types.UnionType:
        return next(part for part in typing.get_args(hint) if part is not type(None))
    return hint


def _escaped(value: Any) -> Any:
    """The value whose `${` OmegaConf reads as text: a resolved configuration has no interpolations."""
    if isinstance(value, list):
        return [_escaped(item) for item in value]
    return re.sub(r"(\\*)\$\{", lambda match: match[1] * 2 + "\\${", value) if isinstance(value, str) else value


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
