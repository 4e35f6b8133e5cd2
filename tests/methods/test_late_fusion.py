"""Late fusion: a complete run of each variant, its files, and its treatment of a missing modality."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from project.cli import evaluate, train
from project.config.compose import load_config
from project.config.run_identity import run_folder
from project.corruption.conditions import CLEAN
from project.data.rows import read_rows
from project.errors import UserError
from project.methods import late_fusion as fusion
from project.methods.base import method_of
from project.methods.validation import panel_scores

SMALL = ("model.image=small", "model.lora.r=4", "model.width=16", "trainer.lr=0.01", "trainer.epochs=2")


def trained(args):
    config = load_config(args)
    train.run(config, {})
    return config, run_folder(config)


def network_of(args):
    config = load_config([*args, *SMALL])
    rows = read_rows(config.data)
    inputs = fusion._inputs(config, rows, fusion.fit_columns(rows.train))
    return fusion.network(config, rows, inputs), inputs, rows


@pytest.mark.parametrize(
    ("method", "perturbation"),
    [("fusion", "none"), ("fusion_noise", "noise"), ("fusion_moddrop", "dropped modalities")],
)
def test_a_run_gives_the_same_predictions_when_evaluated_again(tiny_args, method, perturbation):
    config, folder = trained([*tiny_args, *SMALL, f"method={method}", "robustness.orders=2"])
    info = json.loads((folder / "run.json").read_text())
    assert info["forward_samples"] == 2 * info["rows"]["train"] * info["epochs"]
    assert info["perturbation"] == perturbation
    assert info["llm"]["calls"] == 0 and {"score", "clean", "drop_ratio"} <= set(info["val"]["last"])

    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files == {
        "config.yaml",
        "data.md",
        "run.json",
        "predictions.parquet",
        "results.parquet",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "checkpoints/previous.ckpt",
        "fusion/weights.safetensors",
        "fusion/columns.json",
    }
    checkpoint = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    assert not any("base_layer" in name or "embeddings.word" in name for name in checkpoint["state_dict"])

    predictions = pd.read_parquet(folder / "predictions.parquet")
    evaluate.run(load_config([*tiny_args, *SMALL, f"method={method}", "robustness.orders=2"]), {})
    pd.testing.assert_frame_equal(predictions, pd.read_parquet(folder / "predictions.parquet"))
    assert json.loads((folder / "run.json").read_text())["perturbation"] == perturbation

    by_condition = {
        name: np.stack(rows.sort_values("record")["probabilities"]) for name, rows in predictions.groupby("condition")
    }
    orders = [name for name in by_condition if name.startswith("order")]
    assert len(orders) == 2
    for name in orders:
        np.testing.assert_array_equal(by_condition[name], by_condition["clean"])

    rows = read_rows(config.data)
    scores = panel_scores(method_of(config).load(config, folder, None, rows), rows, config)
    assert scores["score"] == pytest.approx(info["val"]["best_score"])


@pytest.mark.parametrize("extra", [("data.task=number", "data.log=true"), ("data.task=ordinal", "model.head=ordinal")])
def test_numbers_and_ordered_classes_are_learned(tiny_args, extra):
    _, folder = trained(
        [
            *tiny_args,
            *SMALL,
            "method=fusion_moddrop",
            "data.target=price",
            "data.table=[city]",
            "trainer.epochs=1",
            *extra,
        ]
    )
    assert pd.read_parquet(folder / "results.parquet")["value"].notna().any()


def test_a_file_of_weights_with_other_names_is_not_loaded(tiny_args):
    config, folder = trained([*tiny_args, *SMALL, "method=fusion", "trainer.epochs=1"])
    path, rows = folder / fusion._WEIGHTS_FILE, read_rows(config.data)
    weights = load_file(path)
    for altered, message in (
        ({name: value for name, value in weights.items() if name != "head.1.bias"}, "lacks the trained weight head.1."),
        (weights | {"head.2.bias": weights["head.1.bias"].clone()}, "has the unexpected weight head.2.bias"),
    ):
        save_file(altered, path)
        with pytest.raises(UserError, match=f"weights.safetensors {message}"):
            fusion.load(config, folder, None, rows)


def test_evaluating_an_untrained_run_names_the_training_command(tiny_args):
    with pytest.raises(UserError, match="python -m project train"):
        evaluate.run(load_config([*tiny_args, "method=fusion", *SMALL]), {})


@pytest.mark.parametrize("method", ["fusion", "fusion_moddrop"])
def test_a_missing_modality_becomes_zeros_or_a_learned_vector(tiny_args, method):
    model, inputs, rows = network_of([*tiny_args, f"method={method}"])
    model.eval()
    view = inputs.view(rows.train[:2], rows.train[:2])
    view["present"][:, inputs.branches.index("image")] = False
    inverted = {**view, "image": 255 - view["image"]}
    assert torch.equal(model(**view).logits, model(**inverted).logits)
    model(**view).logits.sum().backward()
    is_learned = method == "fusion_moddrop"
    assert (model.missing["image"].grad is not None) == is_learned == model.missing["image"].requires_grad
    assert model.missing["text"].grad is None or not model.missing["text"].grad.any()


def test_the_untrained_network_depends_on_the_seed_alone(tiny_args):
    first, repeated, different = (network_of([*tiny_args, "method=fusion", f"seed={seed}"])[0] for seed in (0, 0, 1))
    for (name, weight), (_, expected) in zip(first.named_parameters(), repeated.named_parameters(), strict=True):
        assert torch.equal(weight, expected), name
    assert not torch.equal(first.head[1].weight, different.head[1].weight)


def test_a_modality_missing_from_the_data_has_no_branch(tiny_args):
    args = [arg for arg in tiny_args if not arg.startswith("data.image")]
    model, inputs, _ = network_of([*args, "method=fusion"])
    assert inputs.branches == ("text", "table") and list(model.branches) == ["text", "table"]


@pytest.mark.parametrize("signal", ["image", "text", "table"])
def test_the_branch_of_the_modality_that_determines_the_class_learns_it(planted, signal, tmp_path):
    config = load_config([*planted(signal), "method=fusion", *SMALL, "trainer.epochs=12", "robustness.val_levels=[]"])
    rows = read_rows(config.data)
    fusion.fit(config, tmp_path, None, rows, None)
    predictor = fusion.load(config, tmp_path, None, rows)

    def accuracy(records):
        answers = predictor(records, CLEAN).answers
        return np.mean([answer == record.target for answer, record in zip(answers, rows.test, strict=True)])

    # Each row gets another row's value: only that of the modality that determines the class matters.
    donors = rows.test[1:] + rows.test[:1]
    exchanged = {
        name: accuracy(
            [replace(record, **{name: getattr(donor, name)}) for record, donor in zip(rows.test, donors, strict=True)]
        )
        for name in rows.modalities
    }
    assert accuracy(rows.test) >= 0.85 and exchanged.pop(signal) <= 0.75
    assert min(exchanged.values()) >= 0.8
