"""An export loads with plain transformers or peft, and has the logits of the run."""

import json
import re

import pandas as pd
import pytest
import torch
import yaml
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

import project
from project.cli import train
from project.cli.main import main
from project.config.compose import load_config
from project.config.run_identity import run_folder
from project.inference import export

PRICE = ("data.target=price", "data.table=[city]")


@pytest.fixture
def trained(tiny_args):
    def train_run(*more):
        config = load_config([*tiny_args, "method=plain", "trainer.epochs=1", "trainer.lr=0.02", *more])
        train.run(config, {})
        return run_folder(config)

    return train_run


def run_card_snippet(folder, text, encoder, monkeypatch):
    """Run the code of the model card on a text; return logits and answer."""
    code = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)[1]
    known = {}
    monkeypatch.chdir(folder)
    # An encoder that is a folder of this machine has no place on it, for others.
    code = code.replace(repr(encoder.name), repr(str(encoder)))
    exec(re.sub(r'"The colour is red[^"]*"', repr(text), code), known)
    return known["logits"], known["answer"]


@pytest.mark.parametrize("adapter", ["false", "true"])
@pytest.mark.parametrize(
    "more",
    [
        (),
        (*PRICE, "data.task=number"),
        (*PRICE, "data.task=number", "data.log=true"),
        (*PRICE, "data.task=ordinal", "model.head=ordinal"),
    ],
    ids=["class", "number", "log", "ordinal"],
)
def test_the_snippet_of_the_card_gives_equal_logits_and_the_same_answer(
    trained, tmp_path, monkeypatch, tiny_encoder, adapter, more
):
    folder, output = trained(*more), tmp_path / "out"
    assert main(["export", f"run={folder}", f"output={output}", f"adapter={adapter}"]) == 0
    predictor = project.load_run(folder)
    predicted = predictor(predictor.rows.test)
    for text, answer in list(zip(predicted["read"], predicted["prediction"], strict=True))[:4]:
        (logits,) = [logits for pieces, logits in predictor._predictor._logits.items() if " ".join(pieces) == text]
        exported, answer_of_card = run_card_snippet(output, text, tiny_encoder, monkeypatch)
        torch.testing.assert_close(exported[0], logits, atol=1e-5, rtol=1e-5)
        assert answer_of_card == (answer if isinstance(answer, str) else pytest.approx(answer, rel=1e-4))


def test_transformers_pipelines_return_class_names(trained, tmp_path):
    folder, output = trained(), tmp_path / "out"
    main(["export", f"run={folder}", f"output={output}"])
    predictor = project.load_run(folder)
    predicted = predictor(predictor.rows.test)
    asked = pipeline("text-classification", model=str(output), device="cpu", truncation=True)
    answers = asked(predicted["read"].tolist())
    assert [answer["label"] for answer in answers] == predicted["prediction"].tolist()
    shares = predicted[["p_apple", "p_pear", "p_plum"]].max(axis=1)
    assert [answer["score"] for answer in answers] == pytest.approx(shares.tolist(), abs=1e-5)


def test_peft_loads_the_adapter_on_the_published_encoder(trained, tmp_path, tiny_encoder):
    folder, merged, alone = trained(), tmp_path / "merged", tmp_path / "alone"
    for output, adapter in ((merged, "false"), (alone, "true")):
        assert main(["export", f"run={folder}", f"output={output}", f"adapter={adapter}"]) == 0
    base = AutoModelForSequenceClassification.from_pretrained(tiny_encoder, num_labels=3)
    adapted = PeftModel.from_pretrained(base, str(alone)).eval()
    whole = AutoModelForSequenceClassification.from_pretrained(merged)
    tokens = AutoTokenizer.from_pretrained(alone)("a red thing, round and sweet", return_tensors="pt")
    with torch.inference_mode():
        torch.testing.assert_close(adapted(**tokens).logits, whole(**tokens).logits, atol=1e-5, rtol=1e-5)
    assert not any("lora" in name for name in load_file(merged / "model.safetensors"))


@pytest.mark.parametrize("adapter", ["false", "true"])
def test_an_export_has_safetensors_and_a_card_and_no_local_path(trained, tmp_path, adapter, tiny_encoder, table_file):
    folder, output = trained(), tmp_path / "out"
    assert main(["export", f"run={folder}", f"output={output}", f"adapter={adapter}"]) == 0
    weights = "adapter_model.safetensors" if adapter == "true" else "model.safetensors"
    extra = {"adapter_config.json"} if adapter == "true" else {"config.json"}
    left = {path.name for path in output.iterdir()}
    assert left == {weights, "README.md", "tokenizer.json", "tokenizer_config.json", *extra}
    for path in output.iterdir():
        if path.name != weights:
            for place in (tmp_path, tiny_encoder.parent, table_file.parent):
                assert str(place) not in path.read_text(), path
    assert AutoTokenizer.from_pretrained(output).model_max_length == 48
    if adapter == "false":
        assert json.loads((output / "config.json").read_text())["id2label"] == {"0": "apple", "1": "pear", "2": "plum"}


def test_the_card_has_the_measured_robustness(trained, tmp_path, tiny_encoder):
    folder, output = trained(), tmp_path / "out"
    main(["export", f"run={folder}", f"output={output}"])
    card = (output / "README.md").read_text()
    results = pd.read_parquet(folder / "results.parquet")
    rows = results[results["metric"] == "accuracy"]
    assert card.count("\n| ") == len(rows) + 2
    clean = rows[rows["condition"] == "clean"].iloc[0]
    interval_text = f"{clean['value']:.3f} [{clean['low']:.3f}, {clean['high']:.3f}]"
    assert (
        f"| clean | none | 0 | image, text, table | {interval_text} |" in card and "classes apple, pear, plum." in card
    )
    header = yaml.safe_load(card.split("---\n")[1])
    assert (header["base_model"], header["method"], header["data"]) == (tiny_encoder.name, "plain", "table")
    assert re.fullmatch("[0-9a-f]{64}", header["config_digest"]) and header["license"] == "other"


def test_the_digest_depends_only_on_keys_that_affect_results(trained, tmp_path):
    def digest(*more):
        output = tmp_path / str(len(list(tmp_path.iterdir())))
        assert main(["export", f"run={trained(*more)}", f"output={output}"]) == 0
        return yaml.safe_load((output / "README.md").read_text().split("---\n")[1])["config_digest"]

    first = digest()
    assert first == digest(f"output={tmp_path / 'elsewhere'}", f"store.path={tmp_path / 'other'}")
    assert first != digest("trainer.lr=0.03") and first != digest("seed=1")


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
    for part in ("output is not given", "exists and is not empty", "has no results", "no transformer of texts"):
        assert part in err
    assert not (tmp_path / "new").exists() and [path.name for path in output.iterdir()] == ["mine"]


def test_an_export_with_other_logits_is_not_written(trained, tmp_path, monkeypatch):
    folder = trained()
    monkeypatch.setattr(export, "_label", lambda model, *others: model.classifier.bias.data.add_(0.1))
    with pytest.raises(RuntimeError, match="its logits are 0.1 apart"):
        main(["export", f"run={folder}", f"output={tmp_path / 'new'}"])
    assert not list(tmp_path.glob("new*"))


def test_randomly_initialized_encoder_weights_are_exported_only_merged(
    trained, tiny_encoder, tmp_path, capsys, monkeypatch
):
    """An encoder published without its pooler."""
    bare = tmp_path / "bare"
    bare.mkdir()
    for path in tiny_encoder.iterdir():
        (bare / path.name).write_bytes(path.read_bytes())
    weights = load_file(tiny_encoder / "model.safetensors")
    save_file(
        {name: weight for name, weight in weights.items() if "pooler" not in name},
        bare / "model.safetensors",
        metadata={"format": "pt"},
    )
    folder = trained(f"model.encoder={bare}")
    assert main(["export", f"run={folder}", f"output={tmp_path / 'new'}", "adapter=true"]) == 2
    assert "lacks bert.pooler.dense.bias" in capsys.readouterr().err
    assert main(["export", f"run={folder}", f"output={tmp_path / 'new'}"]) == 0
    predictor = project.load_run(folder)
    text = predictor(predictor.rows.test[:1])["read"][0]
    (logits,) = predictor._predictor._logits.values()
    torch.testing.assert_close(
        run_card_snippet(tmp_path / "new", text, bare, monkeypatch)[0][0], logits, atol=1e-5, rtol=1e-5
    )
