"""Lightning at the rim: fit a module to a data module, stop early, keep the best epoch, go on after a break."""

import time
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint, RichProgressBar

from .robustness.scores import SCORES
from .schema import Config, Trainer


def fit_module(config: Config, folder: Path, module: L.LightningModule, data: L.LightningDataModule, logger) -> dict:
    """Fit, going on from the last epoch where there is one; the module ends with the weights of its best val/score.

    The module has `target` and counts its `forward_samples`. Returns what run.json says of the training. Raises
    KeyboardInterrupt on Ctrl-C.
    """
    mode = "max" if SCORES[module.target.metric].higher_is_better else "min"
    best = ModelCheckpoint(folder / "checkpoints", filename="best", monitor="val/score", mode=mode, save_last=True,
                           enable_version_counter=False)
    callbacks = [
        best,
        EarlyStopping("val/score", mode=mode, patience=config.trainer.patience),
        RichProgressBar(),
        *([LearningRateMonitor("step")] if logger else []),
    ]
    trainer = L.Trainer(
        max_epochs=config.trainer.epochs, accelerator=config.trainer.accelerator, devices=config.trainer.devices,
        precision=config.trainer.precision, gradient_clip_val=config.trainer.clip, callbacks=callbacks,
        logger=logger or False, default_root_dir=folder, reload_dataloaders_every_n_epochs=1, num_sanity_val_steps=0,
        log_every_n_steps=1, enable_model_summary=False,
    )
    last = folder / "checkpoints" / "last.ckpt"
    start = time.perf_counter()
    try:
        trainer.fit(module, data, ckpt_path=last if last.is_file() else None, weights_only=True)
    except SystemExit as error:
        if trainer.interrupted:
            raise KeyboardInterrupt(f"{folder} goes on from its last epoch with the same command") from error
        raise
    seconds = time.perf_counter() - start
    checkpoint = trainer.strategy.load_checkpoint(best.best_model_path, weights_only=True)
    module.load_state_dict(checkpoint["state_dict"], strict=False)
    panel = {key.removeprefix("val/"): float(value) for key, value in trainer.callback_metrics.items()
             if key.startswith("val/")}
    return {
        "steps": trainer.global_step, "forward_samples": module.forward_samples, "epochs": trainer.current_epoch,
        "seconds": {"train": round(seconds, 1)}, "val": {"best_score": float(best.best_model_score), "last": panel},
    }


def device_of(trainer: Trainer) -> str:
    """Where a trained model answers: the GPU, if there is one and the configuration does not want the processor."""
    return "cuda" if torch.cuda.is_available() and trainer.accelerator != "cpu" else "cpu"
