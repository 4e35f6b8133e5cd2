"""Lightning at the rim: fit a module to a data module on any number of devices, stop early, keep the best epoch, go on
after a break."""

import copy
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint, RichProgressBar
from lightning.pytorch.strategies import FSDPStrategy, Strategy
from lightning.pytorch.utilities import rank_zero_only

from ..config.schema import Config, TrainerConfig
from ..errors import UserError
from ..metrics.scores import SCORES
from ..runtime.signals import Interrupted, handle_stop_signals
from .batching import accumulation_steps, all_reduce_sum
from .checkpointing import AtomicCheckpointIO, PreemptionCheckpoint, is_intact, latest_intact_checkpoint


class ResumableEarlyStopping(EarlyStopping):
    """Early stopping that stays stopped: a run that goes on after its last epoch trains no further one."""

    def on_train_start(self, trainer, module) -> None:
        """Lightning keeps the count of epochs without a better score, but not that it was reached."""
        trainer.should_stop = self.wait_count >= self.patience


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
        """Keep the loss of a batch, and read all kept ones when it is time."""
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


_watchers: list[Callable[[int, dict[str, float]], None]] = []


@contextmanager
def watched(watch: Callable[[int, dict[str, float]], None]) -> Iterator[None]:
    """Calls `watch` with the epoch and its panel after each validation of a fit; what it raises ends the fit."""
    _watchers.append(watch)
    try:
        yield
    finally:
        _watchers.remove(watch)


class TrainingSummary(L.Callback):
    """What run.json says of a training, over all its breaks: seconds, and the last validation's panel.

    Logs val/best_score, the best val/score up to now: what a sweep maximizes, or for an error minimizes.
    """

    def __init__(self, better: Callable[[float, float], float]):
        self.panel: dict[str, float] = {}
        self.best: float | None = None
        self._better = better
        self._before, self._since = 0.0, time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds of training up to now; what a break undid is not among them."""
        return self._before + time.monotonic() - self._since

    def on_validation_end(self, trainer, module) -> None:
        """Take the panel."""
        self.panel = {
            key.removeprefix("val/"): float(value)
            for key, value in trainer.callback_metrics.items()
            if key.startswith("val/")
        }
        score = self.panel["score"]
        self.best = score if self.best is None else self._better(self.best, score)
        if trainer.logger:
            trainer.logger.log_metrics({"val/best_score": self.best}, step=trainer.global_step)
        for watch in _watchers:
            watch(trainer.current_epoch, self.panel | {"best_score": self.best})

    def state_dict(self) -> dict:
        """For the checkpoint."""
        return {"seconds": self.seconds, "panel": self.panel, "best": self.best}

    def load_state_dict(self, state: dict) -> None:
        """From the checkpoint."""
        self._before, self.panel, self.best = state["seconds"], state["panel"], state["best"]


def fit_module(config: Config, folder: Path, module: L.LightningModule, data: L.LightningDataModule, logger) -> dict:
    """Fit, going on from the last checkpoint where there is one; the module ends with the weights of its best score.

    The module has `target` and counts its `forward_samples`; where it reads further ones without learning from them, it
    counts `scoring_samples` and `scoring_seconds`, which are part of the seconds of training. Where the attribute
    `shared` of `data` says so, its loaders give each rank its own batches, equally many, and go on within an epoch, as
    those of shares.py do; without it there is one device. Where `data` has `give_up`, that is called when the run is
    asked to stop. Returns what run.json says of the training. Raises UserError, KeyboardInterrupt on Ctrl-C, and
    Interrupted where the run was asked to stop and has saved.
    """
    mode = "max" if SCORES[module.target.metric].higher_is_better else "min"
    checkpoints = folder / "checkpoints"
    best = ModelCheckpoint(checkpoints, filename="best", monitor="val/score", mode=mode, enable_version_counter=False)
    shared = getattr(data, "shared", False)
    saver = PreemptionCheckpoint(checkpoints, config.trainer.checkpoint_minutes, within=shared)
    told = TrainingSummary(max if mode == "max" else min)
    losses = FiniteLoss(folder)
    callbacks = [
        told,
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
    trainer = L.Trainer(
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
    # Lightning's own handlers save, and talk to the other ranks, within the signal: see SaveAndStop.
    trainer._signal_connector.register_signal_handlers = lambda: None
    if trainer.world_size > 1 and not shared:
        raise UserError(f"method={config.method} trains on one device; give trainer.devices=1 trainer.nodes=1")
    if shared:
        trainer.accumulate_grad_batches = accumulation_steps(config.trainer, trainer.world_size)
    _say(config, trainer)

    def stop() -> None:
        saver.ask()
        getattr(data, "give_up", lambda: None)()

    # FSDP divides the weights of what it trains in place.
    trained = copy.deepcopy(module) if isinstance(trainer.strategy, FSDPStrategy) else module
    try:
        with handle_stop_signals(stop):
            trainer.fit(trained, data, ckpt_path=latest_intact_checkpoint(checkpoints), weights_only=True)
    except BaseException as error:
        goes_on = f"{folder} goes on from its last checkpoint with the same command"
        if saver.asked:  # whatever gave way: generation, or a collective that another rank has left
            raise Interrupted(goes_on) from error
        if isinstance(error, SystemExit) and trainer.interrupted:
            raise KeyboardInterrupt(goes_on) from error
        raise
    counts = torch.tensor([trained.forward_samples, getattr(trained, "scoring_samples", 0)])
    samples, scored = all_reduce_sum(counts, trainer.strategy.root_device).tolist()
    scoring = {"scoring": round(trained.scoring_seconds, 1)} if scored else {}
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()  # what comes after is the first rank's alone
    if not is_intact(Path(best.best_model_path)):
        raise UserError(f"{best.best_model_path} is torn; delete {folder} to train anew")
    module.load_state_dict(
        torch.load(best.best_model_path, map_location="cpu", weights_only=True)["state_dict"], strict=False
    )
    return {
        "steps": trainer.global_step,
        "forward_samples": samples,
        "epochs": trainer.current_epoch,
        **({"scoring_samples": scored} if scored else {}),
        "devices": trainer.world_size,
        "passes": trainer.accumulate_grad_batches,
        "seconds": {"train": round(told.seconds, 1), **scoring},
        "val": {"best_score": float(best.best_model_score), "last": told.panel},
    }


def device_of(trainer: TrainerConfig) -> str:
    """Where a trained model answers: the GPU, if there is one and the configuration does not want the processor."""
    return "cuda" if torch.cuda.is_available() and trainer.accelerator != "cpu" else "cpu"


def autocast_of(config: Config) -> torch.autocast:
    """Return the autocast of trainer.precision on the device of prediction: the one of the validation batches."""
    types = {"16": torch.float16, "16-mixed": torch.float16, "bf16": torch.bfloat16, "bf16-mixed": torch.bfloat16}
    dtype = types.get(config.trainer.precision)
    return torch.autocast(device_of(config.trainer), dtype or torch.bfloat16, enabled=dtype is not None)


def _strategy(config: Config, module: L.LightningModule) -> str | Strategy:
    """Lightning's strategy. FSDP divides each of the encoder's layers, and saves whole checkpoints like the others."""
    if config.trainer.strategy != "fsdp":
        return config.trainer.strategy
    names = set(getattr(getattr(module, "model", None), "_no_split_modules", None) or ())
    layers = {type(part) for part in module.modules() if type(part).__name__ in names}
    return FSDPStrategy(auto_wrap_policy=layers or None, state_dict_type="full", use_orig_params=True)


def _say(config: Config, trainer: L.Trainer) -> None:
    """How a step's records are divided, where there is anything to divide."""
    devices, count = trainer.world_size, trainer.accumulate_grad_batches
    if devices * count > 1 and rank_zero_only.rank == 0:
        print(
            f"a step reads {config.trainer.batch_size} records: {devices} device{'s' * (devices > 1)}, {count} "
            f"pass{'es' * (count > 1)} each"
        )
