"""Every private API of Lightning in use, in one place; tests/training/test_lightning_private.py names each of them."""

import lightning as L


def disable_signal_handlers(trainer: L.Trainer) -> None:
    """Keep Lightning from installing signal handlers during fit."""
    trainer._signal_connector.register_signal_handlers = lambda: None


def batch_progress(checkpoint: dict) -> dict[str, dict[str, int]]:
    """Return the batch counts of a checkpoint's training epoch: "total" and "current", each by stage of a batch."""
    return checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
