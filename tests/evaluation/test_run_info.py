"""run.json: files of older versions, unknown keys and damaged files."""

import json

import pytest

from project.errors import UserError
from project.evaluation.run_info import VERSION, RunInfo
from project.training.fit_info import Validation

BARE = {"method": "llm", "name": "llm-2", "data": "toys", "seed": 3}
PANEL = {"score": 0.75, "clean": 0.8, "drop_ratio": 0.1}


def read(folder, content):
    (folder / "run.json").write_text(json.dumps(content), encoding="utf-8")
    return RunInfo.read(folder)


def test_a_written_file_is_read_back(tmp_path):
    info = RunInfo(
        **BARE,
        metric="rmse",
        seconds={"train": 1.5},
        val=Validation(0.8, PANEL),
        steps=0,
        classes=[],
        constant=0.0,
        attack={"success_rate": None},
        extra={"trials": 6},
    )
    info.write(tmp_path)
    assert RunInfo.read(tmp_path) == info
    content = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    assert content["version"] == VERSION and content["trials"] == 6 and "extra" not in content
    assert content["val"] == {"best_score": 0.8, "last": PANEL}
    assert content["steps"] == 0 and content["classes"] == [] and "folds" not in content and "unparsed" not in content


def test_the_smallest_file_is_read(tmp_path):
    info = read(tmp_path, BARE)
    assert info == RunInfo("llm", "llm-2", "toys", 3)
    assert (info.metric, info.val, info.llm, info.classes) == ("accuracy", None, {}, None)


@pytest.mark.parametrize(
    ("val", "expected"),
    [
        ({"best_score": 0.8, "last": PANEL}, Validation(0.8, PANEL)),
        ({"best_score": 0.8}, Validation(0.8, {})),
        (PANEL, Validation(0.75, PANEL)),  # llm and mllm before version 1
        ({}, None),
        (None, None),
    ],
)
def test_validation_scores_of_older_files_are_read(tmp_path, val, expected):
    assert read(tmp_path, BARE | {"val": val, "git": None}).val == expected


def test_unknown_keys_are_kept(tmp_path):
    info = read(tmp_path, BARE | {"version": VERSION + 1, "new": [1], "setting": {"kind": "trees"}})
    assert info.extra == {"new": [1], "setting": {"kind": "trees"}}
    info.write(tmp_path)
    assert RunInfo.read(tmp_path) == info


@pytest.mark.parametrize(
    "text", ["", '{"method": "pl', "[]", "null", '"text"', '{"method": "plain"}', json.dumps(BARE | {"seconds": 3})]
)
def test_a_damaged_file_is_one_line_that_names_the_file_and_the_command(tmp_path, text):
    path = tmp_path / "run.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        RunInfo.read(tmp_path)
    message = str(caught.value)
    assert message.startswith(f"{path} is damaged") and "\n" not in message
    assert message.endswith(f"delete it, then write it again with python -m project evaluate run={tmp_path}")


def test_a_missing_file_is_one_line_that_names_the_command(tmp_path):
    with pytest.raises(UserError, match="has no run.json; write it with python -m project evaluate run="):
        RunInfo.read(tmp_path)
