"""The reference of all configuration keys: the help of the command line, and docs/configuration.md.

`python -m project.config.reference docs/configuration.md` writes the page.
"""

import ast
import inspect
import sys
from collections.abc import Iterator
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path

from .merge import type_name
from .registry import bounds_text
from .run_identity import RENAMED, format_value
from .schema import PARTS, Config

INTRODUCTION = """# Configuration keys

<!-- Written by `make docs-config` from project/config/schema/; edit the fields there. -->

Set a key with `key=value` on the command line, or in a file of `conf/`. Choose an option of a group with
`group=option`; the options of a group are the files of `conf/<group>/`. Keys of a group with kinds belong to the kind
of the chosen option.
"""


@dataclass(frozen=True)
class Key:
    """A configuration key: its type, its default (`must be given` without one), its bounds or "", and its meaning."""

    name: str
    type: str
    default: str
    bounds: str
    meaning: str


def sections() -> Iterator[tuple[str, list[Key]]]:
    """Yield (title, keys) for the keys without a group, then for each group, or each kind of a group."""
    own = [item for item in fields(Config) if not is_dataclass(item.type) and item.name not in PARTS]
    yield "run", list(_keys(Config, "", own))
    for item in fields(Config):
        kinds = {kind: part.schema for kind, part in PARTS.get(item.name, {}).items()}
        if is_dataclass(item.type):
            kinds = {"": item.type}
        for kind, schema in kinds.items():
            title = f"{item.name}, kind {kind}" if kind else item.name
            yield title, list(_keys(schema, f"{item.name}.", fields(schema)))


def help_text() -> str:
    """Return every key with its type, default, bounds and meaning, by section, for a terminal."""
    texts = []
    for title, keys in sections():
        lines = [title]
        for key in keys:
            facts = [key.type, key.default if key.default == "must be given" else f"default {key.default}", key.bounds]
            lines += [f"  {key.name}  ({'; '.join(filter(None, facts))})", f"      {key.meaning}"]
        texts.append("\n".join(lines))
    return "\n\n".join(texts)


def page() -> str:
    """Return the reference as a Markdown page."""
    lines = [INTRODUCTION]
    for title, keys in sections():
        lines += [f"## {title}", "", "| key | type | default | bounds | meaning |", "|---|---|---|---|---|"]
        for key in keys:
            default = "**required**" if key.default == "must be given" else f"`{key.default}`" if key.default else ""
            cells = (f"`{key.name}`", key.type, default, key.bounds, " ".join(key.meaning.split()))
            lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("<", "&lt;") for cell in cells) + " |")
        lines.append("")
    lines += ["## Renamed keys", "", "The old names are still read, with a notice.", "", "| old | new |", "|---|---|"]
    lines += [f"| `{old}` | `{new}` |" for old, new in RENAMED.items()]
    return "\n".join(lines) + "\n"


def _keys(schema: type, prefix: str, items: tuple[Field, ...] | list[Field]) -> Iterator[Key]:
    for item in items:
        if is_dataclass(item.type):
            yield from _keys(item.type, f"{prefix}{item.name}.", fields(item.type))
            continue
        default = item.default if item.default_factory is MISSING else item.default_factory()
        yield Key(
            f"{prefix}{item.name}",
            type_name(item.type),
            "must be given" if default == "???" else format_value(default),
            bounds_text(item.metadata),
            _meanings(schema)[item.name],
        )


@cache
def _meanings(schema: type) -> dict[str, str]:
    """Return the string below each field; Python drops it, so it is read from the source, base classes first."""
    bodies = [ast.parse(inspect.getsource(base)).body[0].body for base in reversed(schema.__mro__[:-1])]
    return {
        above.target.id: ast.literal_eval(below.value)
        for body in bodies
        for above, below in zip(body, body[1:], strict=False)
        if isinstance(above, ast.AnnAssign) and isinstance(below, ast.Expr)
    }


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
