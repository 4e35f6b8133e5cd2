"""The configuration: composed from conf/, typed by the schema, overridden by key=value.

Each group's option is chosen by the last of config.yaml, experiment, method, debug and command line that names one.
Values are merged in the order option, config.yaml, method, experiment, debug, command line, and the last one wins.
Values under `data`, `llm` or `model` in config.yaml, an experiment or a method are dropped if a later layer of the
first list chooses another option of that group.
"""

import os
import re
import sys
from collections.abc import Callable, Collection, Iterable
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..errors import UserError, did_you_mean
from .merge import COMMAND_LINE, Layer, first_line, merge_layers
from .run_identity import RENAMED, flatten_keys, format_value, is_environment_key, is_evaluation_key, run_name
from .schema import PARTS, Config

_PACKAGED = Path(__file__).parents[1] / "conf"  # in an installed wheel; a checkout has conf/ at its top level
_SHIPPED = _PACKAGED if _PACKAGED.is_dir() else Path(__file__).parents[2] / "conf"
CONF = Path(os.environ.get("TCR_CONF") or _SHIPPED)
"""The folder of the configuration."""
GROUPS = ("data", "experts", "llm", "alignment", "perturbation", "model", "trainer", "robustness")
INLINE = "\0"  # prefix of a model that a method defines itself, without a file of conf/model/; no argument contains it
NO_EXPERIMENT = "default"  # conf/config.yaml alone; the name of the output folder is still "default"


def load_config(args: list[str], root: Path = CONF) -> Config:
    """Compose the folder `root` and key=value arguments; check and name the result. Raises UserError."""
    config = _compose(args, root)
    if config.name is None:
        plain = _compose([f"experiment={config.experiment}", f"method={config.method}"], root)
        config.name = run_name(config.method, to_dict(config), to_dict(plain))
    return config


def run_config(folder: str | Path, args: Iterable[str] = (), root: Path = CONF) -> Config:
    """Return the configuration of a run folder. Raises UserError.

    args may set environment keys and evaluation keys, and choose another option of llm, with its keys.
    """
    path, command = Path(folder) / "config.yaml", _command_line(args)
    llm = command.choices.get("llm")
    for key in [*command.choices, *command.values]:
        if not (is_environment_key(key) or is_evaluation_key(key) or llm and key.split(".")[0] == "llm"):
            raise UserError(f"{COMMAND_LINE}: {key} cannot be given with run={folder}, which sets it")
    if not path.is_file():
        raise UserError(f"{folder} is not a run folder: it has no config.yaml")
    mapping = read_mapping(path, yaml.safe_load)
    if llm is None:
        return from_dict(mapping, str(path), args)
    run = Layer(str(path), values=_resolved_values(mapping | {"llm": {}}))
    return merge_layers([_option(root, "llm", llm, (), "llm."), run, command])


def from_dict(mapping: dict, where: str = "configuration", args: Iterable[str] = ()) -> Config:
    """Invert to_dict; key=value arguments override it. Raises UserError on unknown keys and wrong types."""
    return merge_layers([Layer(where, values=_resolved_values(mapping)), _command_line(args)])


def to_dict(config: Config) -> dict:
    """Return the configuration as nested dicts, lists and scalars."""
    return asdict(config)


def to_yaml(config: Config) -> str:
    """Return the resolved configuration as YAML, in the order of the schema; reading it gives an equal one."""
    mapping = to_dict(config)
    text = yaml.safe_dump(mapping, sort_keys=False, allow_unicode=True, width=120)
    # PyYAML folds some line separators of Unicode into blanks, unless it escapes all that is not ASCII.
    return text if yaml.safe_load(text) == mapping else yaml.safe_dump(mapping, sort_keys=False, width=120)


def check_complete(config: Config) -> None:
    """Refuse a configuration with unset keys. Raises UserError, with one line per key."""
    missing = [key for key, value in flatten_keys(to_dict(config)).items() if value == "???"]
    if missing:
        raise UserError("\n".join(f"{key} is not set; give {key}=..." for key in missing))


def parse_bool(args: dict[str, str], key: str, default: bool) -> bool:
    """Return the boolean argument `key` of a verb. Raises UserError on other text than true or false."""
    text = args.get(key, format_value(default)).lower()
    if text not in ("true", "false"):
        raise UserError(f"{key}={text}: give true or false")
    return text == "true"


def current_key(key: str) -> str:
    """Return the current name of a configuration key."""
    return RENAMED.get(key, key)


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

    files = {group: option for group, option in final.items() if not option.startswith(INLINE)}
    options = [_option(root, group, option, (), f"{group}.") for group, option in files.items()]
    layers = [*options, base, method, experiment, debug, command]
    for layer in layers:
        dropped = {group for group in PARTS if layer.options.get(group) != final.get(group)} if layer.options else ()
        layer.values = {key: value for key, value in layer.values.items() if key.split(".")[0] not in dropped}
    return merge_layers(layers)


def _option(root: Path, group: str, option: str, choosable: tuple[str, ...], prefix: str = "") -> Layer:
    files = (root / group).rglob("*.yaml")
    names = sorted(path.relative_to(root / group).with_suffix("").as_posix() for path in files)
    if option not in names:  # also refuses text that is not a plain file name
        raise UserError(
            f"{group}={option}: {root / group} has {', '.join(names) or 'no option'}{did_you_mean(option, names)}"
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
    values = {_renamed(key): value for key, value in flatten_keys(values, prefix).items()}
    if "model.kind" in values and "model" in choosable:
        choices.setdefault("model", f"{INLINE}{path}")
    return Layer(str(path), choices, values)


def strict_yaml(text: str) -> Any:
    """Parse YAML with OmegaConf, which refuses duplicate keys; PyYAML takes the last."""
    return OmegaConf.to_container(OmegaConf.create(text))


def read_mapping(path: Path, parse: Callable[[str], Any]) -> dict:
    """Return the keys and values of a file. Raises UserError, with the line if known, if it cannot be read."""
    try:
        mapping = parse(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, OmegaConfBaseException, OSError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}:" if mark else ""
        raise UserError(f"{path}:{line} {getattr(error, 'problem', None) or first_line(error)}") from error
    if not isinstance(mapping, dict):
        raise UserError(f"{path}: must be keys and values")
    return mapping


def check_keys(mapping: object, keys: Collection[str], where: str) -> dict:
    """Return `mapping`. Raises UserError, starting with `where`, if it is no dict or has other keys than `keys`."""
    if not isinstance(mapping, dict):
        raise UserError(f"{where}: must be keys and values")
    for key in mapping:
        if key not in keys:
            raise UserError(f"{where}: unknown key {key}; the keys are {', '.join(keys)}{did_you_mean(str(key), keys)}")
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
            layer.values[_renamed(key)] = value
    return layer


def _resolved_values(mapping: dict) -> dict[str, Any]:
    """Return the values of a resolved configuration, of this version or an earlier one, by current dotted key."""
    return {current_key(key): _escaped(value) for key, value in flatten_keys(mapping).items()}


def _renamed(key: str) -> str:
    if key in RENAMED:
        _notify_renamed(key)
    return current_key(key)


@cache
def _notify_renamed(key: str) -> None:
    """Print the new name of a key, once per process."""
    print(f"{key} is now {RENAMED[key]}; use the new name", file=sys.stderr)


def _escaped(value: Any) -> Any:
    """Escape `${`: a resolved configuration has no interpolations."""
    if isinstance(value, list):
        return [_escaped(item) for item in value]
    return re.sub(r"(\\*)\$\{", lambda match: match[1] * 2 + "\\${", value) if isinstance(value, str) else value
