"""Checkpoints: when, and how; written whole or not at all, the previous one kept, loaded without running code."""

import os
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins import TorchCheckpointIO

from ..runtime.signals import Interrupted
from .lightning_private import batch_progress

LAST, BEFORE = "last.ckpt", "before.ckpt"


class AtomicCheckpointIO(TorchCheckpointIO):
    """Saves aside, on the disk, then renames; a LAST that is there becomes BEFORE."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Save to a file of the local or of a shared file system."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f"{path.name}.part")
        with aside.open("wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())  # else a machine that loses its power may keep the new name without the content
        if path.name == LAST and path.exists():
            os.replace(path, path.with_name(BEFORE))
        os.replace(aside, path)


def latest_intact_checkpoint(folder: Path) -> Path | None:
    """What a run goes on from: the last checkpoint, else the one before, which is said; None where none is whole."""
    found = [path for path in (folder / LAST, folder / BEFORE) if path.exists()]
    for path in found:
        if is_intact(path):
            if path.name == BEFORE:
                print(
                    f"{folder / LAST} is torn or missing; the run goes on from {path.name}, the one before it",
                    file=sys.stderr,
                )
            return path
    if found:
        print(f"{' and '.join(map(str, found))} cannot be read; the run begins anew", file=sys.stderr)
    return None


def is_intact(path: Path) -> bool:
    """Whether every byte of a checkpoint is as it was written, by the checksums in it."""
    try:
        with zipfile.ZipFile(path) as file:
            return file.testzip() is None
    except (OSError, zipfile.BadZipFile):
        return False


class PreemptionCheckpoint(Checkpoint):
    """Saves LAST after every epoch and every `minutes`, and where any rank was asked to stop; then it stops.

    Lightning's own handler saves within the signal, wherever each rank happens to be, within a step or a collective:
    the checkpoint may then hold half a step, and ranks wait for each other in different calls. Here all ranks agree on
    a step. ModelCheckpoint(save_last=True) saves only after epochs that were the best so far [2.6.6]. Where the loader
    cannot go on within an epoch, `within` is false, and the run stops at the end of one.
    """

    def __init__(self, folder: Path, minutes: float | None, within: bool):
        self.asked, self._path, self._within = False, folder / LAST, within
        self._minutes, self._since = minutes, time.monotonic()

    def ask(self) -> None:
        """Note that the run is to stop; safe within a signal."""
        self.asked = True

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        """Between two steps of an epoch: agree, save, and stop or go on."""
        if not self._within or (batch_idx + 1) % trainer.accumulate_grad_batches or trainer.is_last_batch:
            return
        due = self._minutes is not None and time.monotonic() - self._since > 60 * self._minutes
        if not self._any(trainer, self.asked or due):
            return
        self._save(trainer)
        self._stop_if_asked(trainer)

    def on_train_epoch_end(self, trainer, module) -> None:
        """After validation, early stopping and the choice of the best: Lightning calls checkpoints last, in order."""
        self._save(trainer)
        self._stop_if_asked(trainer)

    def _save(self, trainer) -> None:
        trainer.save_checkpoint(self._path, weights_only=False)  # which is about what is saved, not how it is loaded
        self._since = time.monotonic()

    def _stop_if_asked(self, trainer) -> None:
        if self._any(trainer, self.asked):
            self.asked = True
            raise Interrupted

    def _any(self, trainer, decision: bool) -> bool:
        return trainer.strategy.reduce_boolean_decision(decision, all=False)

    def on_save_checkpoint(self, trainer, module, checkpoint: dict) -> None:
        """Note how many passes make a step."""
        checkpoint["passes"] = trainer.accumulate_grad_batches

    def on_load_checkpoint(self, trainer, module, checkpoint: dict) -> None:
        """Count the epoch's batches in passes of this run: with other devices a step has another number of them."""
        before, now = checkpoint["passes"], trainer.accumulate_grad_batches
        progress = batch_progress(checkpoint)
        for counts in (progress["total"], progress["current"]):
            pending = counts["ready"] - counts["completed"]  # 1 where it was saved before the batch was counted
            counts |= {name: counts["ready"] // before * now for name in counts}
            counts["completed"] -= pending
