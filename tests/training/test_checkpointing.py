"""Checkpoints are whole or not there, and a torn one costs no more than the way from the one before it."""

import os

import pytest
import torch

from project.training.checkpointing import BEFORE, LAST, AtomicCheckpointIO, is_intact, latest_intact_checkpoint


@pytest.fixture
def saved(tmp_path):
    """Two checkpoints, saved one after the other under the name of the last."""
    for step in (1, 2):
        AtomicCheckpointIO().save_checkpoint({"step": step, "weight": torch.full((400,), step)}, tmp_path / LAST)
    return tmp_path


def step_of(path):
    return AtomicCheckpointIO().load_checkpoint(path, weights_only=True)["step"]


def test_the_one_before_is_kept(saved):
    assert (step_of(saved / LAST), step_of(saved / BEFORE)) == (2, 1)
    assert sorted(os.listdir(saved)) == [BEFORE, LAST]
    assert latest_intact_checkpoint(saved) == saved / LAST


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: data[:900] + bytes([data[900] ^ 1]) + data[901:],
    ],
    ids=["cut off", "empty", "one bit"],
)
def test_a_torn_last_falls_back_to_the_one_before_and_says_so(saved, capsys, spoil):
    data = (saved / LAST).read_bytes()
    (saved / LAST).write_bytes(spoil(data))
    assert not is_intact(saved / LAST)
    assert latest_intact_checkpoint(saved) == saved / BEFORE
    assert f"{saved / LAST} is torn" in capsys.readouterr().err


def test_a_kill_between_the_two_renames_leaves_the_one_before(saved, capsys):
    (saved / LAST).unlink()
    assert latest_intact_checkpoint(saved) == saved / BEFORE and "missing" in capsys.readouterr().err


def test_with_both_torn_the_run_begins_anew_and_says_so(saved, capsys):
    for name in (LAST, BEFORE):
        (saved / name).write_bytes(b"x")
    assert latest_intact_checkpoint(saved) is None and "begins anew" in capsys.readouterr().err


def test_a_save_that_fails_leaves_what_was_there(saved, monkeypatch):
    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="no space"):
        AtomicCheckpointIO().save_checkpoint({"step": 3}, saved / LAST)
    assert step_of(latest_intact_checkpoint(saved)) == 2


def test_nothing_is_run_from_a_checkpoint(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'run'}",)

    AtomicCheckpointIO().save_checkpoint({"step": Evil()}, tmp_path / LAST)
    with pytest.raises(Exception, match="weights_only|Weights only"):
        step_of(tmp_path / LAST)
    assert not (tmp_path / "run").exists()
