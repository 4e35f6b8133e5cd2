"""How an optimizer step's records are divided among devices and passes: the step depends on neither's number."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from ..config.schema import TrainerConfig
from ..errors import UserError


@dataclass(frozen=True)
class MicroBatch:
    """The records that one device reads in one pass, and the weight of their mean loss in the step's."""

    rows: Sequence[int]
    weight: float


def accumulation_steps(config: TrainerConfig, devices: int) -> int:
    """How many passes each device takes for one optimizer step of `batch_size` records. Raises UserError."""
    if config.batch_size < devices:
        raise UserError(
            f"trainer.batch_size={config.batch_size} is less than the {devices} devices; give each "
            "at least one record of a step, or take fewer devices"
        )
    return -(-config.batch_size // (devices * (config.device_batch_size or config.batch_size)))


def split_batch(batch: Sequence[int], count: int) -> list[MicroBatch]:
    """A step's records in `count` parts, whose sizes differ by one at most.

    The mean over the parts of weight x mean loss is the mean loss over the step's records. Where there are fewer
    records than parts, the last record is repeated with weight 0, for every device takes part in every pass.
    """
    bounds = [index * len(batch) // count for index in range(count + 1)]
    found = [batch[low:high] for low, high in zip(bounds, bounds[1:], strict=False)]
    return [MicroBatch(rows or batch[-1:], count * len(rows) / len(batch)) for rows in found]


def shard_eval_batches(chunks: Sequence[Sequence[int]], rank: int, devices: int) -> list[MicroBatch]:
    """The chunks that a rank reads of those that all read together, equally many on each.

    Where they do not divide evenly, the first chunk is repeated with weight 0: it is read and not counted.
    """
    even = [MicroBatch(chunk, 1.0) for chunk in chunks] + [MicroBatch(chunks[0], 0.0)] * (-len(chunks) % devices)
    return even[rank::devices]


def all_reduce_sum(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Numbers of any shape added up over all ranks, element by element; a single process has no other."""
    if not torch.distributed.is_initialized():
        return values
    total = values.to(device, copy=True)
    torch.distributed.all_reduce(total)
    return total.cpu()


class ResumableLoader:
    """Batches that are made when they are asked for: a loader for Lightning, which goes on in mid-epoch.

    `make(start)` yields the batches of an epoch from number `start` on. The state counts optimizer steps, not batches:
    `passes` of them, the batches of a step, may change when a run goes on.
    """

    def __init__(self, make: Callable[[int], Iterator[dict]], count: int, passes: int = 1):
        self._make, self._count, self._passes, self._done = make, count, passes, 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[dict]:
        for batch in self._make(self._done):
            self._done += 1
            yield batch
        self._done = 0

    def state_dict(self) -> dict[str, int]:
        """How many steps of this epoch were handed out."""
        return {"steps": self._done // self._passes}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Begin after as many steps."""
        self._done = state["steps"] * self._passes
