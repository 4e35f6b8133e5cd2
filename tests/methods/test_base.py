"""All methods answer under every condition."""

import pandas as pd
import pytest

from project.cli import train
from project.config.compose import load_config
from project.config.run_identity import run_folder
from project.llm import factory as engines

SMALL = {
    "fusion_noise": ("model.image=small", "model.width=8"),
    "boosting": ("model.image=none",),
    "llm": (),
    "mllm": (),
    "plain": (),
}


@pytest.mark.parametrize("method", SMALL)
def test_every_method_answers_under_a_corruption_that_reads_training_rows(method, tiny_args, scripted, monkeypatch):
    monkeypatch.setattr(engines, "_engine", lambda config: scripted)
    has_encoder = method in ("plain", "fusion_noise")
    args = [arg for arg in tiny_args if has_encoder or not arg.startswith("model.")]
    config = load_config(
        [
            *args,
            f"method={method}",
            *SMALL[method],
            "trainer.epochs=1",
            "alignment.style=false",
            "robustness.natural=[stale]",
            "robustness.levels=[]",
            "robustness.missing=none",
        ]
    )
    train.run(config, {})
    predictions = pd.read_parquet(run_folder(config) / "predictions.parquet")
    assert set(predictions["kind"]) == {"clean", "natural", "order"} and predictions["prediction"].notna().all()
