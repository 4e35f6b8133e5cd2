"""Each experiment of conf/ runs from raw files to results.parquet, on generated rows and small models."""

import json

import pandas as pd
import pytest

from project.cli import train
from project.config.compose import load_config
from project.config.run_identity import run_folder
from project.llm import factory as engines
from tests import made

FILL = {"petfinder": made.made_petfinder, "airbnb": made.made_airbnb, "avito": made.made_avito}
SMALL = (
    "experts.captioner=null",
    "experts.classifier=false",
    "trainer=cpu",
    "trainer.epochs=1",
    "trainer.batch_size=8",
    "trainer.precision=32-true",
    "model.max_tokens=48",
    "perturbation.rounds=1",
    "robustness.levels=[0.5]",
    "robustness.missing=single",
    "robustness.orders=1",
    "robustness.resamples=20",
    "wandb.mode=disabled",
    "model.lora.targets=[query,value]",
)


@pytest.mark.parametrize("paper", ["", "paper/"])
@pytest.mark.parametrize("name", FILL)
def test_an_experiment_runs_from_raw_files_to_results(name, paper, tmp_path, tiny_encoder, scripted, monkeypatch):
    monkeypatch.setattr(engines, "_engine", lambda config: scripted)
    (tmp_path / "rows").mkdir()
    FILL[name](tmp_path / "rows")
    paths = (f"data.path={tmp_path / 'rows'}", f"output={tmp_path / 'out'}", f"store.path={tmp_path / 'store'}")
    config = load_config([f"experiment={paper}{name}", *SMALL, *paths, f"model.encoder={tiny_encoder}"])
    train.run(config, {})
    folder = run_folder(config)
    assert folder.parent.parent == tmp_path / "out" / f"{paper}{name}"
    info, results = json.loads((folder / "run.json").read_text()), pd.read_parquet(folder / "results.parquet")
    metric = {"petfinder": "accuracy", "airbnb": "rmse_log", "avito": "rmse"}[name]
    assert info["metric"] == metric and results[results["metric"] == metric]["value"].notna().all()
    assert ("kappa" in set(results["metric"])) == (name == "petfinder")
    assert "image" in info["modalities"] or name == "airbnb"
    assert info["llm"]["calls"] > 0 and (folder / "data.md").read_text().startswith("# ")
