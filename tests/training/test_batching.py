"""An optimizer step is the same on any number of devices."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from project.config.schema import TrainerConfig
from project.errors import UserError
from project.training.batching import ResumableLoader, accumulation_steps, shard_eval_batches, split_batch

batches = st.lists(st.integers(0, 999), min_size=1, max_size=40)


@given(batches, st.integers(1, 12))
def test_micro_batches_hold_each_record_once_and_average_to_the_mean(batch, count):
    micro_batches = split_batch(batch, count)
    assert [row for part in micro_batches if part.weight for row in part.rows] == batch
    means = [part.weight * sum(part.rows) / len(part.rows) for part in micro_batches]
    assert sum(means) / count == pytest.approx(sum(batch) / len(batch))
    sizes = [len(part.rows) if part.weight else 0 for part in micro_batches]
    assert len(sizes) == count and max(sizes) - min(sizes) <= 1 and all(part.rows for part in micro_batches)


@given(st.integers(1, 64), st.integers(1, 16), st.none() | st.integers(1, 64))
def test_no_micro_batch_exceeds_the_device_batch_size(size, devices, limit):
    config = TrainerConfig(batch_size=max(size, devices), device_batch_size=limit)
    micro_batches = split_batch(range(config.batch_size), devices * accumulation_steps(config, devices))
    assert max(len(part.rows) for part in micro_batches) <= (limit or config.batch_size)
    assert limit or accumulation_steps(config, devices) == 1


def test_more_devices_than_records_in_a_step_raise_an_error():
    with pytest.raises(UserError, match="trainer.batch_size=4 is less than the 8 devices"):
        accumulation_steps(TrainerConfig(batch_size=4), 8)


@given(st.integers(1, 20), st.integers(1, 6))
def test_all_ranks_read_the_same_number_of_batches_and_count_each_once(count, devices):
    chunks = [[index] for index in range(count)]
    shards = [shard_eval_batches(chunks, rank, devices) for rank in range(devices)]
    assert len({len(shard) for shard in shards}) == 1
    assert sorted(batch.rows for shard in shards for batch in shard if batch.weight) == chunks


class TestResumableLoader:
    @staticmethod
    def loader(passes=1):
        return ResumableLoader(lambda start: iter([{"number": number} for number in range(start, 12)]), 12, passes)

    def test_a_loader_resumes_at_the_saved_position(self):
        first, second = self.loader(), self.loader()
        batches = iter(first)
        numbers = [next(batches)["number"] for _ in range(5)]
        second.load_state_dict(first.state_dict())
        assert numbers + [batch["number"] for batch in second] == list(range(12)) and len(second) == 12

    def test_the_state_counts_steps_so_that_the_passes_may_change(self):
        first, second = self.loader(passes=2), self.loader(passes=4)
        batches = iter(first)
        for _ in range(4):
            next(batches)
        second.load_state_dict(first.state_dict())
        assert next(iter(second))["number"] == 8

    def test_a_loaded_state_can_be_saved_again_before_any_batch(self):
        loader = self.loader()
        loader.load_state_dict({"steps": 12})
        assert loader.state_dict() == {"steps": 12} and list(loader) == []
