"""The worked examples of CONTRIBUTING.md are complete and work, applied to a copy of the project."""

import json
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
from email.message import EmailMessage
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^(New, |In )`([^`]+)`:$", re.MULTILINE)
LISTS = ["tests/corruption/test_conditions.py"]
LAWS = [
    "tests/config/test_compose.py",
    "tests/cli/test_main.py",
    "tests/corruption",
    "tests/experts/test_serialization.py",
]
"""The project's own tests of what the examples add: fast ones, and property tests."""
VERBS = """
import json, sys
from project.cli.main import main
for words in json.loads(sys.argv[1]):
    print("$", *words, flush=True)
    if code := main(words):
        sys.exit(code)
"""


def steps():
    """Yield (path, is new, text) for each block of the page; the text of a change is a diff."""
    for block in BLOCK.finditer(PAGE):
        if block[1] == "bash":
            continue
        verb, path = HEADING.findall(PAGE[: block.start()])[-1]
        assert (verb == "In ") == (block[1] == "diff"), f"{path}: write a change as a diff, a new file in full"
        yield path, verb == "New, ", block[2]


def patched(text, diff, path):
    """Apply a diff without line numbers; its old lines must occur exactly once."""
    lines = diff.splitlines(keepends=True)
    old, new = ("".join(line[1:] or "\n" for line in lines if line[:1] != sign) for sign in "+-")
    assert text.count(old) == 1, f"CONTRIBUTING.md: {path} has these lines {text.count(old)} times:\n{old}"
    return text.replace(old, new)


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """A copy of the project with every example in it."""
    folder = tmp_path_factory.mktemp("copy")
    for name in ("project", "conf", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    for path, new, text in steps():
        assert (folder / path).exists() != new, (
            f"CONTRIBUTING.md: {path} {'exists already' if new else 'does not exist'}"
        )
        (folder / path).write_text(text if new else patched((folder / path).read_text(), text, path))
    return folder


def run_python(*words, folder, **options):
    """Return the stdout of a Python process that imports the copy."""
    env = {**os.environ, "PYTHONPATH": str(folder), "TCR_CONF": str(folder / "conf"), "WANDB_MODE": "offline"}
    done = subprocess.run([sys.executable, *words], env=env, capture_output=True, text=True, timeout=300, **options)
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def write_mails(folder):
    """Write mails of two classes by thirty senders, some without a priority."""
    draw = random.Random(0)
    things = {"invoices": "amount tax total payment account", "holidays": "beach mountain hotel flight sun"}
    for name, words in things.items():
        (folder / name).mkdir(parents=True)
        for index in range(60):
            mail = EmailMessage()
            mail["From"], mail["Subject"] = f"sender{index % 30}@example.org", draw.choice(["hello", "question", "re:"])
            if index % 2:
                mail["X-Priority"] = draw.choice("135")
            mail.set_content(f"About the {' and the '.join(draw.sample(words.split(), 3))}, number {index}.")
            (folder / name / f"{index}.eml").write_bytes(bytes(mail))


def test_every_kind_of_part_has_an_example():
    assert re.findall(r"^### An? (\w+)$", PAGE, re.MULTILINE) == ["source", "expert", "engine", "corruption", "method"]


def test_all_examples_work_together_in_one_run(extended, tmp_path):
    write_mails(tmp_path / "mails")
    pd.DataFrame(
        {
            "text": ["About the tax and the total and the payment", "About the hotel and the sun"],
            "subject": ["hello", None],
            "priority": ["1", None],
        }
    ).to_csv(tmp_path / "new.csv", index=False)
    block = [text for kind, text in BLOCK.findall(PAGE) if kind == "bash"][-1]
    commands = [shlex.split(line, comments=True) for line in block.replace("\\\n", " ").splitlines()]
    assert all(words[:3] == ["python", "-m", "project"] for words in commands)
    output = run_python("-c", VERBS, json.dumps([words[3:] for words in commands]), folder=extended, cwd=tmp_path)
    # The source: rows are split by sender, and have no pictures.
    assert "problems: 0" in output and "images are asked for" not in output
    run = tmp_path / "outputs/default/neighbours/seed-0"
    assert "# Mails, by folder" in (run / "data.md").read_text()
    # The expert and the engine: the model reads the expert's format, repeated by the engine.
    texts = pd.read_parquet(run / "texts.parquet")
    assert texts.astype(str).apply(lambda column: column.str.contains("priority: ")).any(axis=None)
    assert json.loads((run / "run.json").read_text())["llm"]["calls"] > 0
    # The corruption and the method: the corruption is a condition, and the accuracy is above chance.
    results = pd.read_parquet(run / "results.parquet").query("metric == 'accuracy'")
    assert results.query("condition == 'clean'")["value"].item() > 0.8 and "capitals" in set(results["corruption"])
    assert "neighbours" in (tmp_path / "outputs/default/report/index.html").read_text()
    answers = pd.read_csv(tmp_path / "answers.csv")
    assert answers["prediction"].tolist() == ["invoices", "holidays"] and answers["p_invoices"].between(0, 1).all()


@pytest.mark.parametrize("tests", [LISTS, pytest.param(LAWS, marks=pytest.mark.slow)], ids=["lists", "laws"])
def test_the_projects_own_tests_pass_with_the_examples(tests, extended):
    run_python("-m", "pytest", "-p", "no:cacheprovider", "-m", "not slow", *tests, folder=extended, cwd=extended)


def test_the_examples_pass_ruff(extended):
    run_python("-m", "ruff", "check", "--no-cache", "project", folder=extended, cwd=extended)


def test_a_diff_that_does_not_apply_names_the_file():
    with pytest.raises(AssertionError, match=r"some.py has these lines 0 times:\s+a = 1"):
        patched("a = 2\n", " a = 1\n+b = 3\n", "some.py")
    assert patched("a = 1\nb = 2\n", " a = 1\n-b = 2\n+b = 3\n", "some.py") == "a = 1\nb = 3\n"
