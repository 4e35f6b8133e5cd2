"""What is exported loads with plain transformers, or peft, and answers exactly as the run does."""

import json
import re

import pandas as pd
import pytest
import torch

import project
from project import train
from project.__main__ import main
from project.config import load_config
from project.run_folder import run_folder

PRICE = ("data.target=price", "data.table=[city]")


@pytest.fixture
def trained(tiny_args):
    def made(*more):
        config = load_config([*tiny_args, "method=plain", "trainer.epochs=1", "trainer.lr=0.02", *more])
        train.run(config, {})
        return run_folder(config)

    return made


def loaded_by_its_card(folder, text, monkeypatch):
    """The logits that the snippet of the card gives for a text."""
    code = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)[1]
    known = {}
    monkeypatch.chdir(folder)
    with torch.inference_mode():
        exec(re.sub(r'"The colour is red[^"]*"', repr(text), code), known)
    return known["logits"]


@pytest.mark.parametrize("adapter", ["false", "true"])
@pytest.mark.parametrize("more", [(), (*PRICE, "data.task=number"),
                                  (*PRICE, "data.task=ordinal", "model.head=ordinal")],
                         ids=["class", "number", "ordinal"])
def test_the_snippet_of_the_card_gives_equal_logits(trained, tmp_path, monkeypatch, adapter, more):
    folder, output = trained(*more), tmp_path / "out"
    assert main(["export", f"run={folder}", f"output={output}", f"adapter={adapter}"]) == 0
    predictor = project.load_run(folder)
    (text,) = predictor([predictor.rows.test[0]])["aligned"]
    (logits,) = predictor._predictor._logits.values()
    torch.testing.assert_close(loaded_by_its_card(output, text, monkeypatch)[0], logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("adapter", ["false", "true"])
def test_an_export_is_safetensors_and_a_card_and_knows_no_path_of_the_machine(trained, tmp_path, adapter, tiny_encoder):
    folder, output = trained(), tmp_path / "out"
    assert main(["export", f"run={folder}", f"output={output}", f"adapter={adapter}"]) == 0
    weights = "adapter_model.safetensors" if adapter == "true" else "model.safetensors"
    assert (output / weights).is_file() and not list(output.glob("*.bin")) + list(output.glob("*.pt"))
    for path in output.glob("*.json"):
        # The encoder of this run is a folder, and is named as its configuration names it.
        assert str(tmp_path) not in path.read_text().replace(str(tiny_encoder), ""), path
    if adapter == "false":
        assert json.loads((output / "config.json").read_text())["id2label"] == {"0": "apple", "1": "pear", "2": "plum"}


def test_the_card_tells_the_measured_robustness(trained, tmp_path):
    folder, output = trained(), tmp_path / "out"
    main(["export", f"run={folder}", f"output={output}"])
    card = (output / "README.md").read_text()
    results = pd.read_parquet(folder / "results.parquet")
    rows = results[results["metric"] == "accuracy"]
    assert card.count("\n| ") == len(rows) + 1
    clean = rows[rows["condition"] == "clean"].iloc[0]
    told = f"{clean['value']:.3f} [{clean['low']:.3f}, {clean['high']:.3f}]"
    assert f"| clean | none | 0 | image, text, table | {told} |" in card
    assert card.startswith("---\nlibrary_name: transformers\n") and "of apple, pear, plum." in card


def test_mistakes_are_one_line_and_write_nothing(trained, tiny_args, tmp_path, capsys):
    folder, output = trained(), tmp_path / "out"
    assert main(["export", f"run={folder}"]) == 2
    output.mkdir()
    (output / "mine").write_text("x")
    assert main(["export", f"run={folder}", f"output={output}"]) == 2
    (folder / "results.parquet").unlink()
    assert main(["export", f"run={folder}", f"output={tmp_path / 'new'}"]) == 2
    boosting = load_config([*[arg for arg in tiny_args if not arg.startswith("model.")], "method=boosting"])
    train.run(boosting, {})
    assert main(["export", f"run={run_folder(boosting)}", f"output={tmp_path / 'new'}"]) == 2
    err = capsys.readouterr().err
    for said in ("output is not given", "is there and not empty", "has no results", "no transformer of texts"):
        assert said in err
    assert not (tmp_path / "new").exists() and [path.name for path in output.iterdir()] == ["mine"]


def test_what_a_seed_drew_below_the_head_is_not_left_to_chance(trained, tiny_encoder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("project.export.without_published", lambda config, target: ["bert.pooler.dense.weight"])
    folder = trained()
    assert main(["export", f"run={folder}", f"output={tmp_path / 'new'}", "adapter=true"]) == 2
    assert "lacks bert.pooler.dense.weight" in capsys.readouterr().err
