"""The pages tell the truth of the folders, and everything public says what it is."""

import ast
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
MODULES = sorted((ROOT / "project").rglob("*.py"))


def named_paths(page):
    """What stands between backquotes and looks like a path of the project, without placeholders."""
    words = re.findall(r"`([\w./*-]+)`", (ROOT / page).read_text())
    folders = {path.name for path in ROOT.iterdir()}
    return sorted({word for word in words if word.split("/")[0] in folders and ("/" in word or "." in word)})


@pytest.mark.parametrize("page", ["docs/architecture.md", "docs/cluster.md", "README.md"])
def test_every_path_that_a_page_names_is_there(page):
    made_by_users = ("outputs", "conf/data/mine.yaml", "project/corruption/sound.py", "project/experts/sound.py")
    missing = [path for path in named_paths(page) if not list(ROOT.glob(path.rstrip("/")))
               and not path.startswith(made_by_users)]
    assert not missing


def test_the_page_of_the_architecture_names_every_folder_and_verb():
    page = (ROOT / "docs/architecture.md").read_text()
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    top = {path.split("/")[0] for path in tracked if "/" in path and not path.startswith((".", "docs/"))}
    rooms = {f"project/{path.split('/')[1]}" for path in tracked if re.match(r"project/\w+/", path)}
    assert not [folder for folder in top | rooms if f"{folder}/" not in page]
    from project.__main__ import VERBS

    assert not [verb for verb in VERBS if f"`{verb}`" not in page]
    assert all((ROOT / "project" / f"{verb}.py").is_file() for verb in VERBS)


def test_everything_public_has_a_docstring():
    bare = []
    for path in MODULES:
        if path.name == "schema.py":  # its fields have their help in the strings below them
            continue
        tree = ast.parse(path.read_text())
        if path.name != "__init__.py" and not ast.get_docstring(tree):
            bare.append(str(path))
        found = [(path, node) for node in tree.body]
        found += [(path, part) for node in tree.body if isinstance(node, ast.ClassDef) and node.name[0] != "_"
                  for part in node.body]
        bare += [f"{path}: {node.name}" for path, node in found
                 if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_"
                 and not ast.get_docstring(node)]
    assert not bare


def test_modules_stay_small():
    long = {path.name: count for path in MODULES if (count := len(path.read_text().splitlines())) > 310}
    assert long == {"schema.py": long.get("schema.py")}  # one list of fields


def test_every_hook_before_a_commit_runs_a_command_that_is_there():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    for hook in hooks:
        program, *words = shlex.split(hook["entry"])
        assert program.startswith(".venv/bin/") or shutil.which(program)
        assert all((ROOT / word).exists() for word in words if word.startswith("tests/"))
        assert hook["language"] == "system"  # nothing is fetched


def test_the_hook_against_large_files_refuses_one(tmp_path):
    (large,) = [hook for hook in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
                if hook["id"] == "large"]
    for size, code in ((10, 0), (2_000_001, 1)):
        (tmp_path / "file").write_bytes(b"x" * size)
        assert subprocess.run([*shlex.split(large["entry"]), tmp_path / "file"]).returncode == code
