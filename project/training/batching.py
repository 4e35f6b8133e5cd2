"""Divide the records of an optimizer step: a step is the same for any number of devices or accumulation steps."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from ..config.schema import TrainerConfig
from ..errors import UserError


@dataclass(frozen=True)
class MicroBatch:
    """Records that one device reads in one forward pass.

    `weight` scales their mean loss, so that the mean over all micro-batches is the mean loss of the step.
    """

    rows: Sequence[int]
    weight: float


def accumulation_steps(config: TrainerConfig, devices: int) -> int:
    """Return the forward passes of each device in one optimizer step of `batch_size` records.

    Raises UserError if the step has fewer records than there are devices.
    """
    if config.batch_size < devices:
        raise UserError(
            f"trainer.batch_size={config.batch_size} is less than the {devices} devices; give each "
            "at least one record of a step, or use fewer devices"
        )
    return -(-config.batch_size // (devices * (config.device_batch_size or config.batch_size)))


def split_batch(batch: Sequence[int], count: int) -> list[MicroBatch]:
    """Split the records of a step into `count` micro-batches whose sizes differ by at most one.

    The mean of weight x mean loss over the micro-batches is the mean loss over the records of the step. If there are
    fewer records than micro-batches, the last record is repeated with weight 0, because every device runs every pass.
    """
    bounds = [index * len(batch) // count for index in range(count + 1)]
    chunks = [batch[low:high] for low, high in zip(bounds, bounds[1:], strict=False)]
    return [MicroBatch(rows or batch[-1:], count * len(rows) / len(batch)) for rows in chunks]


def shard_eval_batches(chunks: Sequence[Sequence[int]], rank: int, devices: int) -> list[MicroBatch]:
    """Return the evaluation batches of one rank; all ranks get the same number.

    If the chunks do not divide evenly, the first chunk is repeated with weight 0: it is read but not counted.
    """
    padded = [MicroBatch(chunk, 1.0) for chunk in chunks] + [MicroBatch(chunks[0], 0.0)] * (-len(chunks) % devices)
    return padded[rank::devices]


def all_reduce_sum(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return the element-wise sum of a tensor of any shape over all ranks; the tensor itself in a single process."""
    if not torch.distributed.is_initialized():
        return values
    total = values.to(device, copy=True)
    torch.distributed.all_reduce(total)
    return total.cpu()


class ResumableLoader:
    """A loader for Lightning that makes batches lazily and can resume within an epoch.

    `make(start)` yields the batches of an epoch from number `start` on. The state counts optimizer steps, not batches,
    because `passes`, the batches of one step, may change when a run resumes.
    """

    def __init__(self, make: Callable[[int], Iterator[dict]], count: int, passes: int = 1):
        self._make, self._count, self._passes, self._position = make, count, passes, 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[dict]:
        for batch in self._make(self._position):
            self._position += 1
            yield batch
        self._position = 0

    def state_dict(self) -> dict[str, int]:
        """Return the number of steps of this epoch whose batches have been yielded."""
        return {"steps": self._position // self._passes}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Skip the steps that the state counts."""
        self._position = state["steps"] * self._passes
