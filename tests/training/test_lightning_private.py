"""The private APIs of Lightning that project/training/lightning_private.py uses still exist and work."""

import signal

import lightning as L
import pytest
import torch
from lightning.pytorch.demos.boring_classes import BoringModel

from project.training.lightning_private import batch_progress, disable_signal_handlers


@pytest.fixture
def trainer(tmp_path):
    options = {
        name: False for name in ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    }
    return L.Trainer(
        max_epochs=1,
        limit_train_batches=2,
        limit_val_batches=0,
        accelerator="cpu",
        default_root_dir=tmp_path,
        **options,
    )


def test_trainer_signal_connector_register_signal_handlers_is_called_by_fit(trainer, monkeypatch):
    calls = []
    monkeypatch.setattr(trainer._signal_connector, "register_signal_handlers", lambda: calls.append(1))
    trainer.fit(BoringModel())
    assert calls == [1]


def test_disabled_signal_handlers_stay_as_they_were(trainer):
    class Model(BoringModel):
        def on_train_start(self):
            self.handler = signal.getsignal(signal.SIGTERM)

    before, model = signal.getsignal(signal.SIGTERM), Model()
    disable_signal_handlers(trainer)
    trainer.fit(model)
    assert model.handler is before


def test_checkpoint_loops_fit_loop_epoch_loop_batch_progress_counts_batches(trainer, tmp_path):
    trainer.fit(BoringModel())
    trainer.save_checkpoint(tmp_path / "some.ckpt")
    progress = batch_progress(torch.load(tmp_path / "some.ckpt", weights_only=False))
    assert {progress[name]["ready"] for name in ("total", "current")} == {2}
    assert set(progress["total"]) == {"ready", "started", "processed", "completed"}
