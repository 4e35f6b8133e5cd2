"""The registry of parts: each kind of a group, with the dataclass of its keys and its implementation.

The implementation is a string, imported when it is first used, so that the configuration imports no other package.
"""

import importlib
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any


@dataclass(frozen=True)
class Part:
    """One kind of a group.

    `schema` is the dataclass of its keys; `implementation` is "module" or "module:attribute". `concurrency` is the key
    with the number of requests that an engine answers at once; without it, one. A `remote` engine does not compete with
    training for the processor, so it may generate while an epoch trains. A method that is not `trained` loads without
    a run folder and only asks a language model.
    """

    schema: type
    implementation: str
    concurrency: str | None = None
    remote: bool = False
    trained: bool = True

    @property
    def module(self) -> ModuleType:
        """The module of the implementation."""
        return importlib.import_module(self.implementation.partition(":")[0])

    def load(self) -> Any:
        """Return the implementation: the attribute, or the module itself."""
        attribute = self.implementation.partition(":")[2]
        return getattr(self.module, attribute) if attribute else self.module


PARTS: dict[str, dict[str, Part]] = {}
"""Parts by group and kind; project.config.schema fills it, so import it from there."""


def part(group: str, implementation: str, **facts: Any):
    """Return a decorator that registers a dataclass under `group` and the default of its field `kind`."""

    def register(schema: type) -> type:
        PARTS.setdefault(group, {})[schema.kind] = Part(schema, implementation, **facts)
        return schema

    return register


def bounded(default: Any, *, minimum: float | None = None, maximum: float | None = None) -> Any:
    """Return a dataclass field whose number, or whose list of numbers, must lie within the bounds."""
    bounds = {"minimum": minimum, "maximum": maximum}
    metadata = {name: bound for name, bound in bounds.items() if bound is not None}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def bounds_text(metadata: Any) -> str:
    """Return the bounds of a field as text: `at least 1`, `in [0, 1]`, or "" without bounds."""
    low, high = metadata.get("minimum"), metadata.get("maximum")
    if low is None and high is None:
        return ""
    return f"at least {low}" if high is None else f"in [{low}, {high}]"
