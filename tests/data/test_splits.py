"""Laws of the splits: grouped, deterministic, and stable if rows are added, removed or reordered."""

import weakref
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from project.config.schema import SplitConfig
from project.data.record import Record
from project.data.splits import SPLITS, split_records
from project.errors import UserError

# Enough single groups that no split is empty: the probability of an empty one is below 1e-13 for any seed.
ANCHORS = [Record(id=f"anchor-{row}", group=f"anchor-{row}", text="t") for row in range(200)]

records = st.dictionaries(st.text(max_size=5), st.sampled_from("abcdefgh"), max_size=40).map(
    lambda groups: [Record(id=name, group=group, text="t") for name, group in groups.items()]
)
splits = st.integers(0, 1000).map(lambda seed: SplitConfig(seed=seed))
caps = st.integers(1, 100)


def split_by_id(chosen):
    """Return the name of the split by record id."""
    return {record.id: name for name, rows in chosen.items() for record in rows}


def names(rows):
    return [record.id for record in rows]


@given(records, splits)
def test_every_row_is_in_one_split_and_every_group_too(rows, split):
    chosen = split_records(rows + ANCHORS, split)
    assert sorted(names(sum(chosen.values(), []))) == sorted(names(rows + ANCHORS))
    groups = [{record.group for record in chosen[name]} for name in SPLITS]
    assert sum(map(len, groups)) == len(set.union(*groups))


@given(st.permutations(ANCHORS), splits, caps, st.integers(10, 300))
@settings(max_examples=30)
def test_the_splits_do_not_depend_on_the_order_of_the_rows(rows, split, cap, limit):
    capped = replace(split, max_train=cap)
    assert split_records(rows, capped, limit) == split_records(ANCHORS, capped, limit)


@given(records, splits)
def test_the_splits_are_reproducible_and_accept_any_iterable(rows, split):
    assert split_records(rows + ANCHORS, split) == split_records(iter(rows + ANCHORS), split)


@given(records, records, splits)
def test_added_rows_do_not_move_others_between_splits(rows, added, split):
    ids = {record.id for record in rows}
    added = [record for record in added if record.id not in ids]
    before = split_by_id(split_records(rows + ANCHORS, split))
    after = split_by_id(split_records(added + rows + ANCHORS, split))
    assert before.items() <= after.items()


@given(records, splits, caps, caps, st.sampled_from(SPLITS))
def test_a_smaller_cap_selects_a_prefix_and_changes_no_other_split(rows, split, first, second, name):
    small, large = sorted((first, second))
    smaller = split_records(rows + ANCHORS, replace(split, **{f"max_{name}": small}))
    larger = split_records(rows + ANCHORS, replace(split, **{f"max_{name}": large}))
    assert len(smaller[name]) <= small
    assert larger[name][: len(smaller[name])] == smaller[name]
    assert all(smaller[rest] == larger[rest] for rest in SPLITS if rest != name)


@given(records, splits, caps, caps)
def test_a_smaller_limit_selects_a_prefix(rows, split, first, second):
    small, large = (split_records(rows + ANCHORS, split, limit) for limit in sorted((first, second)))
    assert all(large[name][: len(small[name])] == small[name] for name in SPLITS)
    assert min(first, second) <= sum(map(len, small.values())) < min(first, second) + len(SPLITS)


@given(splits, st.sampled_from(SPLITS))
def test_a_row_is_in_the_split_that_its_source_assigns(split, name):
    assigned = [replace(record, split=name) for record in ANCHORS[:20]]
    chosen = split_records(assigned + ANCHORS[20:], split)
    assert set(names(assigned)) <= set(names(chosen[name]))
    without = split_records(ANCHORS[20:], split)
    assert all([record for record in chosen[name] if record.split is None] == without[name] for name in SPLITS)


def test_the_split_and_the_order_of_rows_never_change():
    chosen = split_records(ANCHORS, SplitConfig())
    assert {name: len(rows) for name, rows in chosen.items()} == {"train": 131, "val": 26, "test": 43}
    assert {name: rows[0].id for name, rows in chosen.items()} == {
        "train": "anchor-12",
        "val": "anchor-114",
        "test": "anchor-79",
    }


def test_another_seed_gives_other_splits():
    assert split_by_id(split_records(ANCHORS, SplitConfig(seed=0))) != split_by_id(
        split_records(ANCHORS, SplitConfig(seed=1))
    )


def test_the_shares_are_close_to_the_configured_shares():
    rows = [Record(id=str(row), group=str(row), text="t") for row in range(4000)]
    chosen = split_records(rows, SplitConfig(val=0.1, test=0.3))
    assert len(chosen["val"]) / 4000 == pytest.approx(0.1, abs=0.03)
    assert len(chosen["test"]) / 4000 == pytest.approx(0.3, abs=0.03)


@pytest.mark.parametrize(("val", "test"), [(0.5, 0.5), (0.9, 0.3), (-0.1, 0.3), (0.3, -0.1)])
def test_shares_that_leave_no_training_rows_are_refused(val, test):
    with pytest.raises(UserError, match="data.split"):
        split_records(ANCHORS, SplitConfig(val=val, test=test))


@pytest.mark.parametrize("rows", [[], ANCHORS[:1]])
def test_a_split_may_be_empty(rows):
    assert sum(map(len, split_records(rows, SplitConfig()).values())) == len(rows)


@given(caps, st.sampled_from([None, 5, 60]))
@settings(max_examples=20)
def test_memory_holds_at_most_twice_the_selected_rows(cap, limit):
    live = weakref.WeakSet()
    live_counts = []

    def generate_records():
        for row in range(6000):
            record = Record(id=str(row), group=str(row), text="t")
            live.add(record)
            live_counts.append(len(live))
            yield record

    split_records(generate_records(), SplitConfig(max_train=cap, max_val=cap, max_test=cap), limit)
    assert max(live_counts) <= len(SPLITS) * (2 * cap + 1000) + 1
