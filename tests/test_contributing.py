"""The worked examples of CONTRIBUTING.md are applied to a copy of the project, and work."""

import os
import random
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "CONTRIBUTING.md").read_text()
STEP = re.compile(r"^(?:New, `(?P<new>[^`]+)`|In `(?P<path>[^`]+)`, (?P<where>before|after) `(?P<mark>[^`]+)`):\n\n"
                  r"```\w+\n(?P<code>.*?)```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """A copy of the project with every example in it."""
    folder = tmp_path_factory.mktemp("copy")
    for name in ("project", "conf"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for step in STEP.finditer(PAGE):
        if step["new"]:
            (folder / step["new"]).write_text(step["code"])
            continue
        path, mark, code = folder / step["path"], step["mark"].replace("\\n", "\n"), step["code"]
        text = path.read_text()
        assert text.count(mark) == 1, f"{step['path']}: {mark!r} is there {text.count(mark)} times"
        inline = step["where"] == "after" and code.startswith(" ") and code.count("\n") == 1
        code = code.rstrip("\n") if inline or code.startswith("\n") else code
        if step["where"] == "before":
            code += "\n\n" if mark.startswith("@dataclass") else ""
            text = text.replace(mark, code + mark)
        else:
            line = not inline and not code.startswith("\n")
            text = text.replace(mark, mark + ("\n" if line else "") + (code.rstrip("\n") if line else code))
        path.write_text(text)
    return folder


def test_every_part_has_an_example():
    parts = re.findall(r"^## An? (\w+)$", PAGE, re.MULTILINE)
    assert parts == ["source", "expert", "engine", "corruption", "method"]
    assert len(list(STEP.finditer(PAGE))) == PAGE.count("\n```python\n") + PAGE.count("\n```yaml\n")


def test_the_examples_work_together_through_the_ordinary_verbs(extended, tmp_path):
    draw = random.Random(0)
    things = {"fruit": "apple pear plum fig", "tool": "hammer saw drill wrench"}
    rows = [f"{kind}\ta {draw.choice(words.split())} number {index} in a box"
            for index in range(30) for kind, words in things.items()]
    (tmp_path / "rows.txt").write_text("\n".join(rows))
    command = PAGE.rsplit("```bash\n", 1)[1].split("```")[0].replace("\\\n", " ")
    words = shlex.split(command)
    assert words[:3] == ["python", "-m", "project"]
    env = {**os.environ, "PYTHONPATH": str(extended), "TCR_CONF": str(extended / "conf")}
    done = subprocess.run([sys.executable, *words[1:], f"store.path={tmp_path / 'store'}"], cwd=tmp_path, env=env,
                          capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    (results,) = tmp_path.glob("outputs/default/nearest*/seed-0/results.parquet")
    table = pd.read_parquet(results)
    clean = table[(table["condition"] == "clean") & (table["metric"] == "accuracy")]["value"].item()
    assert clean > 0.8 and "capitals" in set(table["corruption"])
    assert (results.parent / "texts.parquet").is_file()


def test_what_the_examples_add_keeps_the_house_rules(extended):
    done = subprocess.run([sys.executable, "-m", "ruff", "check", "--config", str(ROOT / "pyproject.toml"),
                           *[str(extended / step["new"]) for step in STEP.finditer(PAGE)
                             if (step["new"] or "").endswith(".py")]], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
