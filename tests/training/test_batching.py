"""A step's records are divided so that the step is the same on any number of devices."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from project.config.schema import TrainerConfig
from project.errors import UserError
from project.training.batching import ResumableLoader, accumulation_steps, shard_eval_batches, split_batch

batches = st.lists(st.integers(0, 999), min_size=1, max_size=40)


@given(batches, st.integers(1, 12))
def test_the_parts_hold_each_record_once_and_their_weighted_means_average_to_the_mean(batch, count):
    found = split_batch(batch, count)
    assert [row for part in found if part.weight for row in part.rows] == batch
    means = [part.weight * sum(part.rows) / len(part.rows) for part in found]
    assert sum(means) / count == pytest.approx(sum(batch) / len(batch))
    sizes = [len(part.rows) if part.weight else 0 for part in found]
    assert len(found) == count and max(sizes) - min(sizes) <= 1 and all(part.rows for part in found)


@given(st.integers(1, 64), st.integers(1, 16), st.none() | st.integers(1, 64))
def test_no_part_is_larger_than_a_device_may_read(size, devices, most):
    config = TrainerConfig(batch_size=max(size, devices), device_batch_size=most)
    found = split_batch(range(config.batch_size), devices * accumulation_steps(config, devices))
    assert max(len(part.rows) for part in found) <= (most or config.batch_size)
    assert most or accumulation_steps(config, devices) == 1


def test_more_devices_than_records_in_a_step_are_refused():
    with pytest.raises(UserError, match="trainer.batch_size=4 is less than the 8 devices"):
        accumulation_steps(TrainerConfig(batch_size=4), 8)


@given(st.integers(1, 20), st.integers(1, 6))
def test_all_ranks_read_equally_many_chunks_and_count_each_once(count, devices):
    chunks = [[index] for index in range(count)]
    found = [shard_eval_batches(chunks, rank, devices) for rank in range(devices)]
    assert len({len(mine) for mine in found}) == 1
    assert sorted(part.rows for mine in found for part in mine if part.weight) == chunks


class TestBatches:
    @staticmethod
    def made(passes=1):
        return ResumableLoader(lambda start: iter([{"number": number} for number in range(start, 12)]), 12, passes)

    def test_they_go_on_where_the_state_was_taken(self):
        first, second = self.made(), self.made()
        seen = [next(batch)["number"] for batch in [iter(first)] for _ in range(5)]
        second.load_state_dict(first.state_dict())
        assert seen + [batch["number"] for batch in second] == list(range(12)) and len(second) == 12

    def test_the_state_counts_steps_so_that_their_passes_may_change(self):
        first, second = self.made(passes=2), self.made(passes=4)
        going = iter(first)
        for _ in range(4):
            next(going)
        second.load_state_dict(first.state_dict())
        assert next(iter(second))["number"] == 8

    def test_a_state_that_was_loaded_and_not_read_on_is_kept(self):
        loader = self.made()
        loader.load_state_dict({"steps": 12})
        assert loader.state_dict() == {"steps": 12} and list(loader) == []
