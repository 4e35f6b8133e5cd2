"""Run Lightning's Trainer: fit on any number of devices, early stopping, best epoch, resume."""

import copy
import inspect
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint, RichProgressBar
from lightning.pytorch.strategies import FSDPStrategy, Strategy
from lightning.pytorch.utilities import rank_zero_only

from ..config.schema import Config, TrainerConfig
from ..errors import UserError, did_you_mean
from ..metrics.scores import SCORES
from ..runtime.signals import Interrupted, handle_stop_signals
from .batching import accumulation_steps, all_reduce_sum
from .checkpointing import (
    AtomicCheckpointIO,
    PreemptionCheckpoint,
    check_weight_names,
    is_intact,
    latest_intact_checkpoint,
    trainable_names,
)
from .fit_info import FitInfo, Validation
from .lightning_private import disable_signal_handlers

RESERVED = ("accumulate_grad_batches", "enable_checkpointing", "fast_dev_run", "barebones")
"""Arguments of Lightning's Trainer that follow from other keys, or that disable the checkpoint of the best epoch."""


CHECK_EVERY = 10
"""Steps between two readings of the losses and the logged values; each reading waits for the GPU."""


class FiniteLoss(L.Callback):
    """End the run at a training loss that is not finite: on all ranks at once, before validation and checkpoints.

    Losses stay on the device until they are read, every CHECK_EVERY steps and at the end of an epoch. Raises UserError.
    """

    def __init__(self, folder: Path):
        self.last = float("nan")
        self._folder, self._losses = folder, []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        """Store the loss; check the stored ones every CHECK_EVERY steps. Raises UserError if one is not finite."""
        within_step = (batch_idx + 1) % trainer.accumulate_grad_batches > 0
        self._losses.append((trainer.global_step + within_step, outputs["loss"].detach()))
        if not trainer.is_last_batch and (within_step or trainer.global_step % CHECK_EVERY):
            return
        steps, losses = zip(*self._losses, strict=True)
        self._losses = []
        values = torch.stack(losses).tolist()
        self.last = values[-1]
        wrong = [step for step, value in zip(steps, values, strict=True) if not math.isfinite(value)]
        if not trainer.strategy.reduce_boolean_decision(bool(wrong), all=False):
            return
        raise UserError(
            f"the training loss is not finite at epoch {trainer.current_epoch}, step {min(wrong, default=steps[-1])}; "
            "lower trainer.lr, or set trainer.precision=32-true and model.dtype=float32, and delete "
            f"{self._folder} to retrain"
        )


class LossProgressBar(RichProgressBar):
    """Show the last loss that was read: Lightning would read a logged value after every batch to show it."""

    def __init__(self, losses: FiniteLoss):
        super().__init__(refresh_rate=CHECK_EVERY)
        self._losses = losses

    def get_metrics(self, trainer, module) -> dict:
        """Return the validation scores and the loss."""
        return {**super().get_metrics(trainer, module), "train/loss": f"{self._losses.last:.3f}"}


class ResumableEarlyStopping(EarlyStopping):
    """Early stopping that stays in effect when a run resumes after its last epoch."""

    def on_train_start(self, trainer, module) -> None:
        """Restore the stop, because Lightning saves the count of epochs without improvement but not its effect."""
        trainer.should_stop = self.wait_count >= self.patience


class TrainingSummary(L.Callback):
    """Collect the training seconds and the last validation scores for run.json, across interruptions.

    Logs val/best_score, the best val/score so far. A sweep maximizes it, or minimizes it if the metric is an error.
    """

    def __init__(self, better: Callable[[float, float], float]):
        self.panel: dict[str, float] = {}
        self.best: float | None = None
        self._better = better
        self._earlier_seconds, self._start = 0.0, time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds of training so far; excludes work lost to an interruption."""
        return self._earlier_seconds + time.monotonic() - self._start

    def on_validation_end(self, trainer, module) -> None:
        """Store the scores of the validation panel, and log the best score."""
        self.panel = {
            key.removeprefix("val/"): float(value)
            for key, value in trainer.callback_metrics.items()
            if key.startswith("val/")
        }
        score = self.panel["score"]
        self.best = score if self.best is None else self._better(self.best, score)
        if trainer.logger:
            trainer.logger.log_metrics({"val/best_score": self.best}, step=trainer.global_step)

    @property
    def scores(self) -> dict[str, float]:
        """Scores of the last validation by name, and `best_score`."""
        return self.panel | {"best_score": self.best}

    def state_dict(self) -> dict:
        """Return the state that a checkpoint holds."""
        return {"seconds": self.seconds, "panel": self.panel, "best": self.best}

    def load_state_dict(self, state: dict) -> None:
        """Restore the state from a checkpoint."""
        self._earlier_seconds, self.panel, self.best = state["seconds"], state["panel"], state["best"]


def fit_module(
    config: Config,
    folder: Path,
    module: L.LightningModule,
    data: L.LightningDataModule,
    logger,
    callbacks: Sequence[L.Callback] = (),
) -> FitInfo:
    """Fit the module, or resume from the last checkpoint; the module ends with the weights of its best score.

    The module has `target` and counts its `forward_samples`. If it also scores candidates without learning from them,
    it counts `scoring_samples` and `scoring_seconds`; these seconds are part of the training seconds. If
    `data.shards_batches` is true, the loaders of `data` give each rank the same number of batches and resume within an
    epoch, as ResumableLoader does; otherwise training needs a single device. If `data` has `cancel_generation`, it is
    called on a stop request. `callbacks` are added to the trainer, after the TrainingSummary.

    Raises UserError if the data cannot be divided among the devices or the best checkpoint is torn, KeyboardInterrupt
    on Ctrl-C, and Interrupted after a stop request, once the state is saved.
    """
    mode = "max" if SCORES[module.target.metric].higher_is_better else "min"
    checkpoints = folder / "checkpoints"
    best = ModelCheckpoint(checkpoints, filename="best", monitor="val/score", mode=mode, enable_version_counter=False)
    shards_batches = getattr(data, "shards_batches", False)
    saver = PreemptionCheckpoint(checkpoints, config.trainer.checkpoint_minutes, mid_epoch=shards_batches)
    losses = FiniteLoss(folder)
    summary = TrainingSummary(max if mode == "max" else min)
    callbacks = [
        summary,
        *callbacks,
        ResumableEarlyStopping("val/score", mode=mode, patience=config.trainer.patience),
        LossProgressBar(losses),
        *([LearningRateMonitor("step")] if logger else []),
        losses,
        best,
        saver,
    ]
    torch.set_float32_matmul_precision(config.trainer.matmul)
    if config.trainer.compile:
        module.model.compile(dynamic=True)
    arguments = dict(
        max_epochs=config.trainer.epochs,
        accelerator=config.trainer.accelerator,
        devices=config.trainer.devices,
        num_nodes=config.trainer.nodes,
        strategy=_strategy(config, module),
        precision=config.trainer.precision,
        gradient_clip_val=config.trainer.clip,
        callbacks=callbacks,
        plugins=[AtomicCheckpointIO()],
        logger=logger or False,
        default_root_dir=folder,
        reload_dataloaders_every_n_epochs=1,
        num_sanity_val_steps=0,
        log_every_n_steps=CHECK_EVERY,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer = L.Trainer(**arguments, **_extra_arguments(config.trainer, arguments))
    # Lightning's own handlers save, and talk to the other ranks, inside the signal handler: see PreemptionCheckpoint.
    disable_signal_handlers(trainer)
    if trainer.world_size > 1 and not shards_batches:
        raise UserError(f"method={config.method} trains on one device; give trainer.devices=1 trainer.nodes=1")
    if shards_batches:
        trainer.accumulate_grad_batches = accumulation_steps(config.trainer, trainer.world_size)
    log_step_layout(config, trainer)

    def stop() -> None:
        saver.request_stop()
        getattr(data, "cancel_generation", lambda: None)()

    # FSDP shards the weights of its module in place.
    trained = copy.deepcopy(module) if isinstance(trainer.strategy, FSDPStrategy) else module
    try:
        with handle_stop_signals(stop):
            trainer.fit(trained, data, ckpt_path=latest_intact_checkpoint(checkpoints), weights_only=True)
    except BaseException as error:
        message = f"run the same command to resume {folder} from its last checkpoint"
        if saver.stop_requested:  # the stop may surface as an error of generation, or of a collective
            raise Interrupted(message) from error
        if isinstance(error, SystemExit) and trainer.interrupted:
            raise KeyboardInterrupt(message) from error
        raise
    counts = torch.tensor([trained.forward_samples, getattr(trained, "scoring_samples", 0)])
    samples, scored = all_reduce_sum(counts, trainer.strategy.root_device).tolist()
    scoring = {"scoring": round(trained.scoring_seconds, 1)} if scored else {}
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()  # the first rank continues alone
    if not is_intact(Path(best.best_model_path)):
        raise UserError(f"{best.best_model_path} is torn; delete {folder} to retrain")
    weights = torch.load(best.best_model_path, map_location="cpu", weights_only=True)["state_dict"]
    check_weight_names(weights, trainable_names(module), best.best_model_path)
    module.load_state_dict(weights, strict=False)
    return FitInfo(
        seconds={"train": round(summary.seconds, 1), **scoring},
        val=Validation(float(best.best_model_score), summary.panel),
        steps=trainer.global_step,
        forward_samples=samples,
        scoring_samples=scored or None,
        epochs=trainer.current_epoch,
        devices=trainer.world_size,
        passes=trainer.accumulate_grad_batches,
    )


def device_of(trainer: TrainerConfig) -> str:
    """Return the device for inference: "cuda" if there is a GPU and trainer.accelerator is not cpu, else "cpu"."""
    return "cuda" if torch.cuda.is_available() and trainer.accelerator != "cpu" else "cpu"


def autocast_of(config: Config) -> torch.autocast:
    """Return the autocast of trainer.precision on the device of prediction: the one of the validation batches."""
    types = {"16": torch.float16, "16-mixed": torch.float16, "bf16": torch.bfloat16, "bf16-mixed": torch.bfloat16}
    dtype = types.get(config.trainer.precision)
    return torch.autocast(device_of(config.trainer), dtype or torch.bfloat16, enabled=dtype is not None)


def _extra_arguments(config: TrainerConfig, arguments: dict) -> dict[str, Any]:
    """Return trainer.extra. Raises UserError if a key is in `arguments` or RESERVED, or unknown to Lightning."""
    known = inspect.signature(L.Trainer).parameters
    for key in config.extra:
        if key in arguments or key in RESERVED:
            raise UserError(f"trainer.extra.{key} cannot be set: the project sets it; remove it")
        if key not in known:
            raise UserError(f"trainer.extra.{key} is no argument of Lightning's Trainer{did_you_mean(key, known)}")
    return config.extra


def _strategy(config: Config, module: L.LightningModule) -> str | Strategy:
    """Return Lightning's strategy; FSDP shards each encoder layer, and saves full checkpoints like the others."""
    if config.trainer.strategy != "fsdp":
        return config.trainer.strategy
    names = set(getattr(getattr(module, "model", None), "_no_split_modules", None) or ())
    layers = {type(part) for part in module.modules() if type(part).__name__ in names}
    return FSDPStrategy(auto_wrap_policy=layers or None, state_dict_type="full", use_orig_params=True)


def log_step_layout(config: Config, trainer: L.Trainer) -> None:
    """Print how the records of a step are divided, if there is more than one micro-batch."""
    devices, passes = trainer.world_size, trainer.accumulate_grad_batches
    if devices * passes > 1 and rank_zero_only.rank == 0:
        print(
            f"a step reads {config.trainer.batch_size} records: {devices} device{'s' * (devices > 1)}, {passes} "
            f"pass{'es' * (passes > 1)} each"
        )
