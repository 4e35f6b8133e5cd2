"""Modules import only from their own layer and from layers below it."""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent / "project"
LAYERS = (
    ("errors",),
    ("runtime",),
    ("config",),
    ("data",),
    ("corruption", "llm"),
    ("experts",),
    ("pipeline",),
    ("metrics",),
    ("training",),
    ("methods",),
    ("evaluation",),
    ("analysis", "report"),
    ("experiments", "inference"),
    ("cli",),
    ("notebook", "__init__", "__main__"),
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def imported(path):
    """(line, package) for each import of this project in a file, lazy ones included."""
    package = path.relative_to(ROOT.parent).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            for alias in node.names:
                parts = (*base, *(node.module or "").split("."), alias.name)
                yield node.lineno, [part for part in parts if part]
        elif isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.split(".")) for alias in node.names)


def test_every_module_has_a_layer():
    assert {path.stem for path in ROOT.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()} == set(
        LEVEL
    )
    assert len(LEVEL) <= 22


def test_no_module_imports_from_a_higher_layer_or_from_another_package_of_its_own():
    wrong = []
    for path in sorted(ROOT.rglob("*.py")):
        own = path.relative_to(ROOT).with_suffix("").parts[0]
        for line, parts in imported(path):
            if parts[0] == "project" and len(parts) > 1 and parts[1] in LEVEL and parts[1] != own:
                if LEVEL[parts[1]] >= LEVEL[own] and own not in ("__init__", "__main__"):
                    wrong.append(f"project/{path.relative_to(ROOT)}:{line} imports {'.'.join(parts)}")
    assert not wrong
