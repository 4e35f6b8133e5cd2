"""A fit gives the same result after any interruption, and for any number of devices and passes."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from project.cli import train
from project.cli.main import main
from project.config.compose import load_config
from project.config.run_identity import run_folder
from project.errors import UserError
from project.runtime.signals import Interrupted
from project.training.checkpointing import LAST
from project.training.datamodule import TextDataModule
from project.training.fit import FiniteLoss
from project.training.module import RobustModule


@pytest.fixture
def args(tiny_args):
    """Arguments of three epochs of four steps, with a learning rate that changes the weights."""
    return [*tiny_args, "method=rules", "trainer.lr=0.02", "trainer.patience=9"]


@pytest.fixture
def trained(args, tmp_path):
    """Return a function that trains a run with the output folder `name`, and returns its run folder."""

    def run(name, *settings, **options):
        config = load_config([*args, f"output={tmp_path / name}", *settings])
        train.run(config, options)
        return run_folder(config)

    return run


def run_info(folder):
    return json.loads((folder / "run.json").read_text())


def weights(folder, name=LAST):
    return torch.load(folder / "checkpoints" / name, weights_only=True)["state_dict"]


def assert_equal_runs(first, second, tolerance=0.0):
    first_weights, second_weights = weights(first), weights(second)
    assert max((first_weights[name] - second_weights[name]).abs().max() for name in first_weights) <= tolerance
    for name in ("predictions.parquet", "results.parquet"):
        pd.testing.assert_frame_equal(
            pd.read_parquet(first / name), pd.read_parquet(second / name), check_exact=not tolerance, atol=tolerance
        )
    for key in ("steps", "epochs", "forward_samples", "scoring_samples"):
        assert run_info(first).get(key) == run_info(second).get(key), key
    assert run_info(first)["val"]["last"] == pytest.approx(run_info(second)["val"]["last"], abs=tolerance)


class Disturbed:
    """Record the batches that are read, and send this process a signal in optimizer step `at`."""

    def __init__(self, monkeypatch, at, number=signal.SIGUSR1):
        self.batches, step = [], RobustModule.training_step

        def training_step(module, batch, batch_idx):
            self.batches.append(tuple(batch["labels"].tolist()) + (batch["views"][1]["input_ids"].sum().item(),))
            if module.global_step == at and number:
                os.kill(os.getpid(), number)
            return step(module, batch, batch_idx)

        monkeypatch.setattr(RobustModule, "training_step", training_step)


@pytest.mark.parametrize("at", [0, 5, 7, 11], ids=["first step", "mid-epoch", "last of an epoch", "last of all"])
def test_a_stopped_run_resumes_at_the_same_sample_and_ends_as_an_undisturbed_one(trained, monkeypatch, at):
    with monkeypatch.context() as patch:
        undisturbed = Disturbed(patch, at=-1)
        reference = trained("reference")
    with monkeypatch.context() as patch:
        first = Disturbed(patch, at)
        with pytest.raises(Interrupted, match="from its last checkpoint"):
            trained("interrupted")
    with monkeypatch.context() as patch:
        second = Disturbed(patch, at=-1)
        resumed = trained("interrupted")
    assert first.batches + second.batches == undisturbed.batches and len(first.batches) == at + 1
    assert_equal_runs(reference, resumed)


def test_without_mid_epoch_resume_the_run_stops_at_the_end_of_an_epoch(trained, monkeypatch):
    monkeypatch.setattr(TextDataModule, "shards_batches", False)
    reference = trained("reference")
    with monkeypatch.context() as patch:
        first = Disturbed(patch, at=5)
        with pytest.raises(Interrupted):
            trained("interrupted")
    assert len(first.batches) == 8
    assert_equal_runs(reference, trained("interrupted"))


def test_a_crashed_run_resumes_from_its_last_checkpoint(trained, monkeypatch):
    """As after kill -9, but in this process: nothing is saved once the step fails."""
    reference = trained("reference")
    step = RobustModule.training_step

    def crash(module, batch, batch_idx):
        if module.global_step == 6:
            raise MemoryError
        return step(module, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(RobustModule, "training_step", crash)
        with pytest.raises(MemoryError):
            trained("crashed", "trainer.checkpoint_minutes=0.001")
    assert_equal_runs(reference, trained("crashed"))


def test_checkpoint_minutes_save_within_an_epoch(trained, monkeypatch):
    saved_steps, step = [], RobustModule.training_step

    def slow(module, batch, batch_idx):
        time.sleep(0.1)
        path = module.trainer.default_root_dir + "/checkpoints/last.ckpt"
        saved_steps.append(torch.load(path, weights_only=True)["global_step"] if os.path.exists(path) else None)
        return step(module, batch, batch_idx)

    monkeypatch.setattr(RobustModule, "training_step", slow)
    trained("timed", "trainer.checkpoint_minutes=0.001", "trainer.epochs=1")
    assert saved_steps == [None, 1, 2, 3]


def test_a_run_with_a_torn_last_checkpoint_resumes_from_the_previous_one(trained, monkeypatch, tmp_path, capsys):
    with monkeypatch.context() as patch:
        Disturbed(patch, at=9)
        with pytest.raises(Interrupted):
            trained("interrupted")
    (last,) = tmp_path.rglob(LAST)
    last.write_bytes(last.read_bytes()[:1000])
    resumed = trained("interrupted")
    assert "is torn or missing; the run resumes from the previous checkpoint, previous.ckpt" in capsys.readouterr().err
    assert_equal_runs(trained("reference"), resumed)


def test_a_checkpoint_without_a_trained_weight_is_not_loaded(trained, monkeypatch):
    save = RobustModule.on_save_checkpoint

    def save_without_a_weight(module, checkpoint):
        save(module, checkpoint)
        del checkpoint["state_dict"][min(checkpoint["state_dict"])]

    with monkeypatch.context() as patch:
        patch.setattr(RobustModule, "on_save_checkpoint", save_without_a_weight)
        with pytest.raises(UserError, match=r"best\.ckpt lacks the trained weight model\..*lora_A"):
            trained("run")
    with pytest.raises(UserError, match=r"last\.ckpt lacks the trained weight model\..*lora_A"):
        trained("run")


def test_a_resumed_run_that_had_stopped_early_trains_no_further_epoch(trained):
    """The interruption came in the evaluation, after training had stopped early."""
    early = trained("early", "trainer.patience=1", "trainer.epochs=9")
    info = run_info(early)
    assert info["epochs"] < 9
    predictions = pd.read_parquet(early / "predictions.parquet")
    (early / "results.parquet").unlink()
    trained("early", "trainer.patience=1", "trainer.epochs=9")
    assert {**run_info(early), "seconds": 0} == {**info, "seconds": 0}
    pd.testing.assert_frame_equal(predictions, pd.read_parquet(early / "predictions.parquet"))


def test_a_stop_request_cancels_generation(trained, monkeypatch):
    def traces(self, round):
        os.kill(os.getpid(), signal.SIGTERM)
        assert self.pipeline.llm.cancelled.wait(5)
        raise RuntimeError("cancelled")

    monkeypatch.setattr(TextDataModule, "traces_of_round", traces)
    with pytest.raises(Interrupted):
        trained("interrupted")


DOUBLE = "trainer.precision=64-true"
"""In single precision the sum of a gradient that is nearly zero depends on its order, and AdamW divides by its size."""


@pytest.fixture
def without_dropout(monkeypatch):
    """Switch dropout off, because its masks depend on the number of micro-batches in a step."""
    start = RobustModule.on_train_batch_start

    def on_train_batch_start(module, batch, batch_idx):
        module.model.eval()
        start(module, batch, batch_idx)

    monkeypatch.setattr(RobustModule, "on_train_batch_start", on_train_batch_start)


def test_accumulation_does_not_change_the_step(trained, without_dropout):
    one = trained("one", DOUBLE)
    several = trained("several", DOUBLE, "trainer.device_batch_size=3")  # 8 records in 2, 3, 3; then 6 in 2, 2, 2
    assert (run_info(one)["passes"], run_info(several)["passes"]) == (1, 3)
    assert_equal_runs(one, several, tolerance=1e-7)


def test_the_passes_may_change_when_a_run_resumes_in_mid_epoch(trained, without_dropout, monkeypatch):
    reference = trained("reference", DOUBLE)
    with monkeypatch.context() as patch:
        Disturbed(patch, at=5)
        with pytest.raises(Interrupted):
            trained("interrupted", DOUBLE)
    resumed = trained("interrupted", DOUBLE, "trainer.device_batch_size=3")
    assert_equal_runs(reference, resumed, tolerance=1e-7)


@pytest.mark.parametrize("settings", [(), ("method=freelb", "trainer.epochs=1")], ids=" ".join)
def test_activation_checkpointing_does_not_change_the_result(trained, settings):
    stored = trained("stored", DOUBLE, *settings)
    recomputed = trained("recomputed", DOUBLE, "trainer.activation_checkpointing=true", *settings)
    assert_equal_runs(stored, recomputed, tolerance=1e-7)


def test_a_data_module_that_does_not_shard_batches_needs_one_device(trained, monkeypatch):
    monkeypatch.setattr(TextDataModule, "shards_batches", False)
    with pytest.raises(UserError, match="trains on one device"):
        trained("two", "trainer.devices=2", "trainer.strategy=ddp")


def test_a_run_trained_without_evaluation_can_be_evaluated_later(trained, args, tmp_path):
    reference = trained("reference")
    separate = trained("separate", evaluate="false")
    assert not (separate / "results.parquet").exists() and run_info(separate)["steps"] == 12
    from project.cli import evaluate

    evaluate.run(load_config([*args, f"output={tmp_path / 'separate'}"]), {})
    assert_equal_runs(reference, separate)


class TestALossThatIsNotFinite:
    def test_it_ends_the_command_in_one_line_and_leaves_no_results(self, args, tmp_path, capsys):
        wild = [*args, f"output={tmp_path / 'wild'}", "trainer.lr=1e30"]
        assert main(["train", *wild]) == 2
        (line,) = [line for line in capsys.readouterr().err.splitlines() if "not finite" in line]
        assert "epoch 0, step " in line and "lower trainer.lr" in line and "model.dtype=float32" in line
        assert not list(tmp_path.glob("wild/**/results.parquet")) and not list(tmp_path.glob("wild/**/run.json"))

    @pytest.mark.parametrize(("passes", "at"), [((), 5), (("trainer.device_batch_size=4",), 5), ((), 11)])
    def test_the_message_names_epoch_and_step(self, trained, monkeypatch, passes, at):
        step = RobustModule.training_step

        def training_step(module, batch, batch_idx):
            loss = step(module, batch, batch_idx)
            return loss * float("inf") if module.global_step == at else loss

        monkeypatch.setattr(RobustModule, "training_step", training_step)
        with pytest.raises(UserError, match=f"epoch {at // 4}, step {at + 1};"):
            trained("wild", *passes)

    def test_it_ends_the_ranks_whose_loss_is_finite_too(self, tmp_path):
        other = SimpleNamespace(reduce_boolean_decision=lambda decision, all: True)
        trainer = SimpleNamespace(
            accumulate_grad_batches=1, is_last_batch=True, global_step=7, current_epoch=2, strategy=other
        )
        with pytest.raises(UserError, match="epoch 2, step 7"):
            FiniteLoss(tmp_path).on_train_batch_end(trainer, None, {"loss": torch.tensor(1.0)}, {}, 0)


def test_values_are_read_from_the_device_once_in_ten_steps(trained, monkeypatch):
    """Each reading waits for a GPU. AdamW without `fused` reads the number of its steps, which is on the processor."""
    monkeypatch.setattr(torch.optim, "AdamW", lambda weights, lr, **options: torch.optim.SGD(weights, lr))
    reads, marks, item, step = [], [], torch.Tensor.item, RobustModule.training_step
    monkeypatch.setattr(torch.Tensor, "item", lambda tensor: reads.append(tensor) or item(tensor))
    monkeypatch.setattr(RobustModule, "training_step", lambda *args: marks.append(len(reads)) or step(*args))
    trained("run", "trainer.batch_size=1", "trainer.epochs=1", evaluate="false")
    reading_steps = sum(later > earlier for earlier, later in itertools.pairwise(marks))
    assert len(marks) > 25 and reading_steps <= len(marks) // 10 + 1


def test_a_run_can_be_compiled(trained, monkeypatch):
    plain, compiled = trained("plain"), []
    network = torch.nn.Module.compile

    def compile_eagerly(module, **options):
        compiled.append(options)
        network(module, backend="eager", **options)

    monkeypatch.setattr(torch.nn.Module, "compile", compile_eagerly)
    assert_equal_runs(plain, trained("compiled", "trainer.compile=true"), tolerance=1e-5)
    assert compiled == [{"dynamic": True}]


@pytest.mark.slow
class TestTwoProcesses:
    """DDP over gloo, as Lightning starts it on one machine."""

    TWO = ("trainer.devices=2", "trainer.strategy=ddp")

    @pytest.fixture
    def command(self, args, tmp_path):
        def build(name, *settings):
            return [sys.executable, "-m", "project", "train", *args, f"output={tmp_path / name}", *self.TWO, *settings]

        return build

    def run(self, command):
        return subprocess.run(command, capture_output=True, text=True, timeout=300)

    @pytest.mark.parametrize("settings", [(), ("perturbation.num_candidates=2",), ("method=freelb",)], ids=" ".join)
    def test_two_processes_give_the_result_of_one_with_two_passes(self, trained, command, args, tmp_path, settings):
        one = trained("one", DOUBLE, "trainer.device_batch_size=4", *settings)
        process = self.run(command("two", DOUBLE, *settings))
        assert process.returncode == 0, process.stderr
        assert "a step reads 8 records: 2 devices, 1 pass each" in process.stdout
        two = run_folder(load_config([*args, DOUBLE, f"output={tmp_path / 'two'}", *settings]))
        assert (run_info(two)["devices"], run_info(two)["passes"]) == (2, 1)
        assert_equal_runs(one, two, tolerance=1e-7)

    def test_a_loss_that_is_not_finite_ends_both(self, command):
        done = self.run(command("wild", "trainer.lr=1e30"))
        assert done.returncode == 2 and "the training loss is not finite" in done.stderr

    def test_killing_one_process_ends_both(self, command, tmp_path):
        first = subprocess.Popen(
            command("two", "trainer.epochs=2000"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        deadline = time.monotonic() + 200
        while not list(tmp_path.glob("two/*/*/*/checkpoints/last.ckpt")):
            assert first.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        children = subprocess.run(["pgrep", "-P", str(first.pid), "-f", "project"], capture_output=True, text=True)
        os.kill(int(children.stdout.split()[0]), signal.SIGKILL)
        _, errors = first.communicate(timeout=60)
        assert first.returncode not in (0, 75)
