"""Checkpoints are written atomically, and a torn one falls back to the previous one."""

import os

import pytest
import torch

from project.training.checkpointing import LAST, PREVIOUS, AtomicCheckpointIO, is_intact, latest_intact_checkpoint


@pytest.fixture
def saved(tmp_path):
    """Save two checkpoints, one after the other, as LAST; return their folder."""
    for step in (1, 2):
        AtomicCheckpointIO().save_checkpoint({"step": step, "weight": torch.full((400,), step)}, tmp_path / LAST)
    return tmp_path


def step_of(path):
    return AtomicCheckpointIO().load_checkpoint(path, weights_only=True)["step"]


def test_the_previous_checkpoint_is_kept(saved):
    assert (step_of(saved / LAST), step_of(saved / PREVIOUS)) == (2, 1)
    assert sorted(os.listdir(saved)) == [LAST, PREVIOUS]
    assert latest_intact_checkpoint(saved) == saved / LAST


@pytest.mark.parametrize(
    "corrupt",
    [
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: data[:900] + bytes([data[900] ^ 1]) + data[901:],
    ],
    ids=["cut off", "empty", "one bit"],
)
def test_a_torn_checkpoint_falls_back_to_the_previous_one_with_a_warning(saved, capsys, corrupt):
    data = (saved / LAST).read_bytes()
    (saved / LAST).write_bytes(corrupt(data))
    assert not is_intact(saved / LAST)
    assert latest_intact_checkpoint(saved) == saved / PREVIOUS
    assert f"{saved / LAST} is torn" in capsys.readouterr().err


def test_a_kill_between_the_two_renames_leaves_the_previous_checkpoint(saved, capsys):
    (saved / LAST).unlink()
    assert latest_intact_checkpoint(saved) == saved / PREVIOUS and "missing" in capsys.readouterr().err


def test_a_run_folder_of_an_earlier_version_falls_back_to_its_before_ckpt(saved, capsys):
    (saved / PREVIOUS).rename(saved / "before.ckpt")
    (saved / LAST).write_bytes(b"x")
    assert latest_intact_checkpoint(saved) == saved / "before.ckpt"
    assert "resumes from the previous checkpoint, before.ckpt" in capsys.readouterr().err


def test_a_newer_previous_checkpoint_is_preferred_to_an_old_before_ckpt(saved):
    (saved / PREVIOUS).rename(saved / "before.ckpt")
    AtomicCheckpointIO().save_checkpoint({"step": 3}, saved / LAST)
    (saved / LAST).write_bytes(b"x")
    assert step_of(latest_intact_checkpoint(saved)) == 2


def test_a_run_with_no_intact_checkpoint_starts_from_scratch_with_a_warning(saved, capsys):
    for name in (LAST, PREVIOUS):
        (saved / name).write_bytes(b"x")
    assert latest_intact_checkpoint(saved) is None and "starts from scratch" in capsys.readouterr().err


def test_a_failed_save_leaves_the_old_checkpoints(saved, monkeypatch):
    def fail(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="no space"):
        AtomicCheckpointIO().save_checkpoint({"step": 3}, saved / LAST)
    assert step_of(latest_intact_checkpoint(saved)) == 2


def test_loading_a_checkpoint_runs_no_code(tmp_path):
    class Malicious:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'run'}",)

    AtomicCheckpointIO().save_checkpoint({"step": Malicious()}, tmp_path / LAST)
    with pytest.raises(Exception, match="weights_only|Weights only"):
        step_of(tmp_path / LAST)
    assert not (tmp_path / "run").exists()
