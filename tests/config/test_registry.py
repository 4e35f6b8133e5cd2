"""The registry of parts: implementations exist, and are imported on first use only."""

import subprocess
import sys
from dataclasses import fields

import pytest

from project.config.registry import bounded, bounds_text, part
from project.config.schema import PARTS, DataConfig, LLMConfig, ModelConfig

KINDS = [(group, kind) for group, parts in PARTS.items() for kind in parts]


@pytest.mark.parametrize(("group", "kind"), KINDS)
def test_every_kind_has_an_implementation(group, kind):
    registered = PARTS[group][kind]
    pytest.importorskip("openai") if kind == "openai" else None
    loaded = registered.load()
    wanted = {"data": ("__call__",), "llm": ("generate",), "model": ("fit", "load")}[group]
    assert all(hasattr(loaded, name) for name in wanted)
    assert issubclass(registered.schema, {"data": DataConfig, "llm": LLMConfig, "model": ModelConfig}[group])


@pytest.mark.parametrize(("group", "kind"), KINDS)
def test_a_registered_concurrency_is_a_key_of_the_kind(group, kind):
    registered = PARTS[group][kind]
    assert registered.concurrency is None or registered.concurrency in {item.name for item in fields(registered.schema)}


def test_the_configuration_imports_no_implementation():
    code = (
        "import sys, project.config.compose; "
        "sys.exit(any(name.split('.')[:2] in (['project', 'data'], ['project', 'methods'], ['project', 'llm']) "
        "for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_dataclass_is_registered_under_the_default_of_its_kind(monkeypatch):
    monkeypatch.setitem(PARTS, "data", dict(PARTS["data"]))

    @part("data", "os.path:join")
    class Config:
        kind = "new"

    assert PARTS["data"]["new"].schema is Config and PARTS["data"]["new"].load()("a", "b") == "a/b"


def test_the_bounds_of_a_field_are_its_metadata():
    assert bounds_text(bounded(1, minimum=0, maximum=1).metadata) == "in [0, 1]"
    assert bounds_text(bounded([1], minimum=1).metadata) == "at least 1"
    assert bounds_text({}) == ""
