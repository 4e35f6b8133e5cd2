"""The pages name existing paths, links and headings, and everything public has a docstring."""

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


PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "data/demo/README.md",
    *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))),
]
MADE_BY_USERS = (
    "outputs",
    "conf/data/mine.yaml",
    "project/corruption/sound.py",
    "project/experts/sound.py",
    "project/data/sources/mails.py",
    "project/llm/engines/echo.py",
    "project/methods/nearest.py",
)


def words(page, until=None):
    """Return the inline code of a page's prose and tables, up to a heading."""
    prose = re.sub(r"^```.*?^```$", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return sorted(set(re.findall(r"`([^`\n]+)`", prose.split(f"\n## {until}\n")[0])))


PATHLESS = {
    "README.md",
    "data/demo/README.md",
    *(f"docs/{name}.md" for name in ("api", "benchmarks", "datasets", "evaluation", "footguns", "index", "methods")),
    *(f"docs/{name}.md" for name in ("prediction_and_export", "research_log")),
}
"""Pages that name no path of the project."""


@pytest.mark.parametrize("page", PAGES)
def test_every_path_that_a_page_names_exists(page):
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
    assert (paths or page in PATHLESS) and not missing


def anchors(path):
    """Return the anchors that GitHub gives the headings of a page."""
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_of_a_page_leads_to_a_file_and_a_heading(page):
    text = re.sub(r"^```.*?^```$", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        target = (ROOT / page).parent / name if name else ROOT / page
        if not target.exists() or anchor and anchor not in anchors(target):
            broken.append(link)
    assert not broken


def test_every_page_is_in_the_contents_of_the_site():
    contents = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    listed = re.findall(r"^[\w./]+$", "".join(re.findall(r"^```\{toctree\}(.*?)^```$", contents, re.M | re.S)), re.M)
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")} - {"index"}
    assert len(listed) == len(set(listed)) and pages <= set(listed)


@pytest.mark.parametrize(("page", "least"), [("docs/architecture.md", 60), ("docs/paper.md", 10)])
def test_every_short_path_of_a_page_exists(page, least):
    short = [
        word
        for word in words(page, until="A run folder")
        if re.fullmatch(r"[\w.*-]+/|[\w./*-]+\.(py|yaml|md)", word) and word != "outputs/"
    ]
    places = [ROOT, ROOT / "project", ROOT / "conf", *(ROOT / "project").glob("**/")]
    missing = [path for path in short if not any(list(place.glob(path.rstrip("/"))) for place in places)]
    assert len(short) > least and not missing


def test_the_architecture_page_names_every_folder_module_and_verb():
    named = set(words("docs/architecture.md"))
    ignored = (ROOT / ".gitignore").read_text().replace("/\n", "\n").split()
    top = [
        path.name
        for path in ROOT.glob("*/")
        if path.name[0] != "." and not any(fnmatch(path.name, pattern) for pattern in ignored)
    ]
    packages = [path.parent.name for path in ROOT.glob("project/*/__init__.py")]
    groups = [path.name for path in ROOT.glob("conf/*/")]
    assert "project" in top and "llm" in packages and "method" in groups
    data = {"data": "data/demo"}  # the only folder in it
    assert not [name for name in (*top, *packages, *groups) if not {f"{name}/", f"{data.get(name)}/"} & named]
    modules = [path for path in ROOT.glob("project/*.py") if path.stem[:2] != "__"]
    assert not [
        path.name for path in modules if not any(fnmatch(path.name, word.removeprefix("project/")) for word in named)
    ]
    assert set(VERBS) <= named and all((ROOT / "project/cli" / f"{verb}.py").is_file() for verb in VERBS)


def public(path):
    """Yield the name and node of the module and of its public classes, functions and methods."""
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
    long = {path.name: count for path in MODULES if (count := len(path.read_text().splitlines())) > 300}
    assert not long


[LOCAL] = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
HOOKS = {hook["id"]: hook for hook in LOCAL["hooks"]}


def hooked(name, *files, cwd):
    """Return the exit code of a pre-commit hook on some files."""
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
