"""Checkpoints: atomic, checksummed, loaded without running code; the previous one is kept."""

import os
import sys
import time
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins import TorchCheckpointIO
from torch import nn

from ..errors import UserError
from ..runtime.signals import Interrupted
from .lightning_private import batch_progress

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"
_OLD_PREVIOUS = "before.ckpt"
"""The name of PREVIOUS in run folders of earlier versions."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Atomic save (temporary file, fsync, rename); keeps the old LAST as PREVIOUS."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Save to a file of a local or shared file system."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.part")
        with temporary.open("wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())  # without it, a power failure may leave the new name with no content
        if path.name == LAST and path.exists():
            os.replace(path, path.with_name(PREVIOUS))
        os.replace(temporary, path)


def latest_intact_checkpoint(folder: Path) -> Path | None:
    """Return the newest intact checkpoint, falling back to the previous one with a warning; None if none is intact."""
    candidates = [path for name in (LAST, PREVIOUS, _OLD_PREVIOUS) if (path := folder / name).exists()]
    for path in candidates:
        if is_intact(path):
            if path.name != LAST:
                print(
                    f"{folder / LAST} is torn or missing; the run resumes from the previous checkpoint, {path.name}",
                    file=sys.stderr,
                )
            return path
    if candidates:
        print(f"{' and '.join(map(str, candidates))} cannot be read; the run starts from scratch", file=sys.stderr)
    return None


def is_intact(path: Path) -> bool:
    """Return True if every byte of a checkpoint matches the checksums in the file."""
    try:
        with zipfile.ZipFile(path) as file:
            return file.testzip() is None
    except (OSError, zipfile.BadZipFile):
        return False


def trainable_names(module: nn.Module) -> set[str]:
    """Return the names of the weights that are trained, the only ones in a saved file."""
    return {name for name, weight in module.named_parameters() if weight.requires_grad}


def check_weight_names(weights: Iterable[str], trainable: Iterable[str], path: Path | str) -> None:
    """Check that a file has all trainable weights and no others; frozen ones come from the published model.

    Raises UserError with the first name that is missing or unexpected.
    """
    weights, trainable = set(weights), set(trainable)
    for name in sorted(weights ^ trainable):
        problem = "lacks the trained weight" if name in trainable else "has the unexpected weight"
        raise UserError(f"{path} {problem} {name}; delete its run folder to retrain")


class PreemptionCheckpoint(Checkpoint):
    """Save LAST after every epoch and every `minutes`; save and stop if any rank received a stop request.

    Lightning's own handler saves inside the signal handler, wherever each rank happens to be, within a step or a
    collective: the checkpoint may then hold half a step, and ranks wait for each other in different calls. Here all
    ranks agree on a step. ModelCheckpoint(save_last=True) saves only after epochs that were the best so far [2.6.6].
    With `mid_epoch` false, for loaders that cannot resume within an epoch, the run stops at the end of an epoch.
    """

    def __init__(self, folder: Path, minutes: float | None, mid_epoch: bool):
        self.stop_requested, self._path, self._mid_epoch = False, folder / LAST, mid_epoch
        self._minutes, self._last_save = minutes, time.monotonic()

    def request_stop(self) -> None:
        """Request a stop after the current step; safe in a signal handler."""
        self.stop_requested = True

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        """Between two steps of an epoch: agree over all ranks, save, then stop or continue."""
        if not self._mid_epoch or (batch_idx + 1) % trainer.accumulate_grad_batches or trainer.is_last_batch:
            return
        is_due = self._minutes is not None and time.monotonic() - self._last_save > 60 * self._minutes
        if not self._any_rank(trainer, self.stop_requested or is_due):
            return
        self._save(trainer)
        self._stop_if_requested(trainer)

    def on_train_epoch_end(self, trainer, module) -> None:
        """After validation, early stopping and the choice of the best: Lightning calls checkpoints last, in order."""
        self._save(trainer)
        self._stop_if_requested(trainer)

    def _save(self, trainer) -> None:
        trainer.save_checkpoint(self._path, weights_only=False)  # saves the state of the optimizer and loops too
        self._last_save = time.monotonic()

    def _stop_if_requested(self, trainer) -> None:
        if self._any_rank(trainer, self.stop_requested):
            self.stop_requested = True
            raise Interrupted

    def _any_rank(self, trainer, decision: bool) -> bool:
        return trainer.strategy.reduce_boolean_decision(decision, all=False)

    def on_save_checkpoint(self, trainer, module, checkpoint: dict) -> None:
        """Store the number of gradient accumulation steps."""
        checkpoint["passes"] = trainer.accumulate_grad_batches

    def on_load_checkpoint(self, trainer, module, checkpoint: dict) -> None:
        """Convert the epoch's batch counts to this run's accumulation steps, which depend on the number of devices."""
        old_passes, new_passes = checkpoint["passes"], trainer.accumulate_grad_batches
        progress = batch_progress(checkpoint)
        for counts in (progress["total"], progress["current"]):
            pending = counts["ready"] - counts["completed"]  # 1 if the save came before the batch was counted
            counts |= {name: counts["ready"] // old_passes * new_passes for name in counts}
            counts["completed"] -= pending
