"""The pages tell the truth of the folders, and everything public says what it is."""

import ast
import json
import re
import shlex
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml

from project.cli.main import VERBS

ROOT = Path(__file__).parent.parent
MODULES = sorted((ROOT / "project").rglob("*.py"))


MADE_BY_USERS = ("outputs", "conf/data/mine.yaml", "project/corruption/sound.py", "project/experts/sound.py")


def words(page, until=None):
    """What stands between backquotes in a page's prose and tables, up to a heading."""
    prose = re.sub(r"^```.*?^```$", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return sorted(set(re.findall(r"`([^`\n]+)`", prose.split(f"\n## {until}\n")[0])))


@pytest.mark.parametrize("page", ["docs/architecture.md", "docs/cluster.md", "README.md", "CONTRIBUTING.md"])
def test_every_path_that_a_page_names_is_there(page):
    folders = {path.name for path in ROOT.iterdir()}
    paths = [
        word
        for word in words(page)
        if re.fullmatch(r"[\w./*-]+", word) and word.split("/")[0] in folders and ("/" in word or "." in word)
    ]
    added = set(re.findall(r"^New, `([^`]+)`:$", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE))
    missing = [
        path
        for path in paths
        if not list(ROOT.glob(path.rstrip("/"))) and not path.startswith(MADE_BY_USERS) and path not in added
    ]
    assert paths and not missing


def test_every_short_path_on_the_page_of_the_architecture_is_there():
    short = [
        word
        for word in words("docs/architecture.md", until="A run folder")
        if re.fullmatch(r"[\w.*-]+/|[\w./*-]+\.(py|yaml|md)", word) and word != "outputs/"
    ]
    places = [ROOT, ROOT / "project", ROOT / "conf", *(ROOT / "project").glob("**/")]
    missing = [path for path in short if not any(list(place.glob(path.rstrip("/"))) for place in places)]
    assert len(short) > 60 and not missing


def test_the_page_of_the_architecture_leaves_out_no_folder_module_or_verb():
    told = set(words("docs/architecture.md"))
    ignored = (ROOT / ".gitignore").read_text().replace("/\n", "\n").split()
    top = [
        path.name
        for path in ROOT.glob("*/")
        if path.name[0] != "." and not any(fnmatch(path.name, pattern) for pattern in ignored)
    ]
    rooms = [path.parent.name for path in ROOT.glob("project/*/__init__.py")]
    groups = [path.name for path in ROOT.glob("conf/*/")]
    assert "project" in top and "llm" in rooms and "method" in groups
    data = {"data": "data/demo"}  # which is all that is there
    assert not [name for name in (*top, *rooms, *groups) if not {f"{name}/", f"{data.get(name)}/"} & told]
    modules = [path for path in ROOT.glob("project/*.py") if path.stem[:2] != "__"]
    assert not [
        path.name for path in modules if not any(fnmatch(path.name, word.removeprefix("project/")) for word in told)
    ]
    assert set(VERBS) <= told and all((ROOT / "project/cli" / f"{verb}.py").is_file() for verb in VERBS)


def public(path):
    """The module, classes, functions and methods of a file that others may use, each with its name."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    where = path.relative_to(ROOT)
    yield str(where), tree
    for node in tree.body:
        named = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        if named and node.name[0] != "_":
            yield f"{where}: {node.name}", node
            for part in node.body if isinstance(node, ast.ClassDef) else ():
                if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef) and part.name[0] != "_":
                    yield f"{where}: {node.name}.{part.name}", part


EVERYTHING = [item for path in MODULES for item in public(path)]


def test_everything_public_has_a_docstring():
    schema = "project/config/schema/"  # whose fields have theirs
    sections = [name for name, _ in EVERYTHING if name.startswith(schema) and ": " in name]
    empty = [str(path.relative_to(ROOT)) for path in MODULES if not path.read_text()]
    bare = [name for name, node in EVERYTHING if not ast.get_docstring(node) and name not in sections + empty]
    assert len(EVERYTHING) > 500 and not bare


@pytest.mark.parametrize("error", ["UserError", "ValueError"])
def test_a_docstring_says_that_an_error_is_raised(error):
    silent = []
    for name, node in EVERYTHING:
        if not isinstance(node, ast.Module | ast.ClassDef):
            raised = [
                ast.unparse(part.exc.func)
                for part in ast.walk(node)
                if isinstance(part, ast.Raise) and isinstance(part.exc, ast.Call)
            ]
            if error in raised and error not in (ast.get_docstring(node) or ""):
                silent.append(name)
    assert not silent


def test_modules_stay_small():
    long = {path.name: count for path in MODULES if (count := len(path.read_text().splitlines())) > 345}
    assert not long


[LOCAL] = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
HOOKS = {hook["id"]: hook for hook in LOCAL["hooks"]}


def hooked(name, *files, cwd):
    """The exit code of a hook before a commit, as it is called on files."""
    words = [word.replace(".venv/bin", str(Path(sys.executable).parent)) for word in shlex.split(HOOKS[name]["entry"])]
    return subprocess.run([*words, *files], cwd=cwd, capture_output=True).returncode


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("ruff", "value = 1\n", "value = undefined\n"),
        ("shell", "if true; then echo; fi\n", "if true; then echo\n"),
        ("end", "one\ntwo\n", "one\ntwo"),
        ("large", "small\n", "large\n" * 400_000),
    ],
)
def test_a_hook_lets_good_files_pass_and_stops_a_bad_one_among_them(name, good, bad, tmp_path):
    first, second = tmp_path / "first.py", tmp_path / "second.py"
    first.write_text(good)
    second.write_text(good)
    assert hooked(name, first, second, cwd=tmp_path) == 0
    second.write_text(bad)
    assert hooked(name, first, second, cwd=tmp_path) != 0


def test_the_hook_on_white_space_looks_at_what_is_committed(tmp_path):
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    for text, stopped in (("a line\n", False), ("a line \n", True), ("<<<<<<< ours\n", True)):
        (tmp_path / "file").write_text(text)
        subprocess.run(["git", "add", "file"], cwd=tmp_path, check=True)
        assert (hooked("whitespace", cwd=tmp_path) != 0) == stopped


def test_the_hook_on_notebooks_takes_outputs_away_and_leaves_a_clean_one_as_it_is(tmp_path):
    pytest.importorskip("nbconvert")
    source = sorted((ROOT / "notebooks").glob("*.ipynb"))[0]
    clean, run = tmp_path / "clean.ipynb", tmp_path / "run.ipynb"
    shutil.copy(source, clean)
    book = json.loads(source.read_text())
    cell = next(cell for cell in book["cells"] if cell["cell_type"] == "code")
    cell |= {"execution_count": 3, "outputs": [{"name": "stdout", "output_type": "stream", "text": ["told\n"]}]}
    run.write_text(json.dumps(book))
    assert hooked("notebooks", clean, run, cwd=tmp_path) == 0
    assert clean.read_bytes() == run.read_bytes() == source.read_bytes()


def test_every_hook_works_without_a_network():
    for hook in HOOKS.values():
        program, *words = shlex.split(hook["entry"])
        assert hook["language"] == "system" and (program.startswith(".venv/bin/") or shutil.which(program))
        assert all((ROOT / word).exists() for word in words if word.startswith("tests/"))
