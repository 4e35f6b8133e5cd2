"""The command line: verbs, help, exit codes."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
import yaml

from project.cli.main import VERBS, help_text, main
from project.config.compose import flatten_keys, from_dict, load_config, to_dict, to_yaml
from project.errors import UserError


@pytest.fixture
def calls(monkeypatch):
    """Replace the module of each verb, and record the arguments of its calls."""
    recorded = []
    for name in VERBS:
        run = lambda config, args, name=name: recorded.append((name, config, args))  # noqa: E731
        monkeypatch.setitem(sys.modules, f"project.cli.{name}", SimpleNamespace(run=run))
    return recorded


def failing(monkeypatch, error):
    def run(config, args):
        raise error

    monkeypatch.setitem(sys.modules, "project.cli.train", SimpleNamespace(run=run))


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"]])
def test_help_lists_the_verbs(argv, capsys):
    assert main(argv) == 0
    out = capsys.readouterr().out
    assert all(f"  {name}" in out for name in VERBS)


@pytest.mark.parametrize("name", VERBS)
def test_a_verbs_help_shows_its_arguments_and_every_key(name, capsys, calls):
    assert main([name, "--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"  {argument}\n" in out for argument in VERBS[name].arguments)
    assert help_text() in out
    assert calls == []


def test_every_key_is_explained():
    text = help_text()
    for args in ([], ["data=table"]):
        assert all(f"  {key}  (" in text for key in flatten_keys(to_dict(load_config(args))))


def test_a_verb_gets_the_configuration_and_its_own_arguments(calls):
    assert main(["prepare", "dry_run=true", "--seed=3"]) == 0
    assert main(["train", "trainer.epochs=2"]) == 0
    (first, config, args), (second, other, none) = calls
    assert (first, config.seed, args) == ("prepare", 3, {"dry_run": "true"})
    assert (second, other.trainer.epochs, none) == ("train", 2, {})


def test_a_verb_with_many_configurations_gets_the_settings_unchanged(calls):
    assert main(["study", "some.yaml", "hours=2", "data.path=x"]) == 0
    assert calls == [("study", ["data.path=x"], {"words": ["some.yaml"], "hours": "2"})]


def test_the_configuration_comes_from_the_run_folder(tmp_path, calls):
    config = load_config(["seed=7", "trainer.lr=0.5"])
    (tmp_path / "config.yaml").write_text(to_yaml(config), encoding="utf-8")
    assert main(["show", f"--run={tmp_path}", "id=a=b", "condition=noisy(image, 0.5)"]) == 0
    assert calls == [("show", config, {"run": str(tmp_path), "id": "a=b", "condition": "noisy(image, 0.5)"})]


def test_print_config_prints_a_loadable_configuration_and_runs_nothing(capsys, calls):
    assert main(["train", "--print-config", "data=table", "seed=2"]) == 0
    assert from_dict(yaml.safe_load(capsys.readouterr().out)) == load_config(["data=table", "seed=2"])
    assert calls == []


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            ["trian"],
            "unknown verb trian; the verbs are validate, prepare, train, evaluate, predict, export, study, sweep, "
            "analyse, report, store, show; did you mean train?",
        ),
        (["train", "sed=1"], "command line: unknown key sed; did you mean seed?"),
        (["train", "seed"], "command line: seed is not of the form key=value"),
        (["train", "run=x"], "command line: unknown key run"),
        (["evaluate", "run=nowhere"], "nowhere is not a run folder: it has no config.yaml"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(argv, message, capsys, calls):
    assert main(argv) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", f"error: {message}\n")
    assert calls == []


def test_a_user_error_of_a_verb_is_one_line(monkeypatch, capsys):
    failing(monkeypatch, UserError("data.path is not set"))
    assert main(["train"]) == 2
    assert capsys.readouterr().err == "error: data.path is not set\n"


def test_an_interrupt_is_one_line_and_exit_code_130(monkeypatch, capsys):
    failing(monkeypatch, KeyboardInterrupt())
    assert main(["train"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_bug_keeps_its_traceback(monkeypatch):
    failing(monkeypatch, ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        main(["train"])


def test_the_module_runs_and_imports_no_verb_for_help():
    code = "import sys; from project.cli.main import main; main(['train', '--help']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
    done = subprocess.run([sys.executable, "-m", "project", "trian"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
