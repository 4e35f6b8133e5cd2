"""Finding and loading run folders."""

import json
import logging

import pandas as pd
import pytest

from project.errors import UserError
from project.evaluation.run_loading import FILES, load_runs, run_folders


@pytest.fixture
def outputs(tmp_path):
    """Three finished runs in two experiments, and an unfinished one."""
    for name in ("a/plain/seed-0", "a/plain/seed-1", "paper/b/ours/seed-0", "a/ours/seed-0"):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "config.yaml").touch()
        for file in FILES if name != "a/ours/seed-0" else ():
            (folder / file).touch()
    return tmp_path


def named(outputs, *patterns):
    return [folder.relative_to(outputs).as_posix() for folder in run_folders(f"{outputs}/{word}" for word in patterns)]


def test_globs_and_folders_match_each_finished_run_once(outputs, caplog):
    with caplog.at_level(logging.WARNING):
        assert named(outputs, "**/seed-*") == ["a/plain/seed-0", "a/plain/seed-1", "paper/b/ours/seed-0"]
    assert "a/ours/seed-0 is left out: it has no run.json, predictions.parquet, results.parquet" in caplog.text
    assert named(outputs, "a/plain/seed-0", "a/*/seed-0", "a/plain/../plain/seed-0") == ["a/plain/seed-0"]


@pytest.mark.parametrize("pattern", ["a", "nowhere/*", "a/ours/seed-0"])
def test_a_pattern_without_a_finished_run_is_an_error(outputs, pattern):
    with pytest.raises(UserError, match=f"no finished run in .*{pattern[:5]}"):
        run_folders([outputs / pattern])


def test_probabilities_are_read_on_request(outputs):
    folder = outputs / "a/plain/seed-0"
    (folder / "run.json").write_text(json.dumps({"method": "plain", "name": "plain", "data": "d", "seed": 0}))
    rows = pd.DataFrame(
        {
            "record": ["r", "r"],
            "group": "g",
            "present": "text",
            "corruption": "",
            "condition": ["clean", "noisy(text, 0.5)"],
            "kind": ["clean", "noisy"],
            "modality": ["none", "text"],
            "level": [0.0, 0.5],
            "order": "text",
            "target": "x",
            "prediction": "x",
            "probabilities": [[0.9, 0.1], [0.6, 0.4]],
        }
    )
    rows.to_parquet(folder / "predictions.parquet")
    rows.to_parquet(folder / "results.parquet")
    (run,) = load_runs([folder])
    assert "probabilities" not in run.predictions and len(run.predictions) == 2
    assert run.probabilities(["clean"])["probabilities"].item().tolist() == [0.9, 0.1]
