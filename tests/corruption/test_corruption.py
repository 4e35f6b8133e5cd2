"""Laws of noise: no change at level 0, the same change for the same seed, and more change at a higher level."""

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from project.config.schema import RobustnessConfig
from project.corruption import conditions
from project.corruption.conditions import CLEAN, Condition, noisy
from project.data.images import pixels
from project.data.record import MODALITIES, Record
from project.pipeline.corrupt import corrupt

LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)
WORDS = " ".join(f"word{number}" for number in range(400))
TABLE = {f"column {number}": str(number) for number in range(400)}
levels = st.floats(0, 1)
seeds = st.integers(0, 2**31)
texts = st.text(max_size=60)
tables = st.dictionaries(st.text(max_size=4), st.text(max_size=4), max_size=8)
targets = st.sampled_from([(name,) for name in MODALITIES] + [MODALITIES])


def record_of(text=WORDS, table=TABLE, id="a", colour=(128, 128, 128), side=4):
    return Record(id, id, Image.new("RGB", (side, side), colour), text, table, "label")


def scaled_pixels(record):
    """Return the pixels in [0, 1]."""
    return pixels(record.image) / 255


def present_cells(record):
    """Return the cells that are not missing."""
    return {name: value for name, value in record.table.items() if value is not None}


def is_subsequence(smaller, larger):
    """Return True if `larger` holds the words of `smaller` in the same order."""
    remaining = iter(larger)
    return all(word in remaining for word in smaller)


@given(targets, seeds, texts, tables)
def test_level_0_is_the_identity(target, seed, text, table):
    record = record_of(text, table)
    corrupted = corrupt(record, noisy(target, 0.0, seed))
    assert replace(corrupted, image=None) == replace(record, image=None)
    assert corrupted.image.tobytes() == record.image.tobytes()


@given(texts, tables)
def test_clean_missing_nothing_and_the_usual_order_are_the_identity(text, table):
    record = record_of(text, table)
    assert corrupt(record, CLEAN) == corrupt(record, Condition("missing")) == corrupt(record, Condition("order"))
    assert corrupt(record, CLEAN) is record


@given(levels, seeds, texts, tables)
def test_the_same_seed_gives_the_same_damage(level, seed, text, table):
    condition = noisy(MODALITIES, level, seed)
    assert corrupt(record_of(text, table), condition) == corrupt(record_of(text, table), condition)


@given(levels, levels, seeds, texts, tables)
def test_losses_at_a_lower_level_are_losses_at_a_higher_level(first, second, seed, text, table):
    low, high = sorted([first, second])
    less, more = (corrupt(record_of(text, table), noisy(("text", "table"), level, seed)) for level in (low, high))
    assert is_subsequence(more.text.split(), less.text.split()) and is_subsequence(less.text.split(), text.split())
    assert present_cells(more).items() <= present_cells(less).items() <= table.items()


@given(levels, seeds)
def test_the_remaining_cells_keep_their_order(level, seed):
    corrupted = corrupt(record_of(), noisy(("table",), level, seed))
    assert list(corrupted.table) == list(TABLE) and is_subsequence(present_cells(corrupted), list(TABLE))


@given(seeds, texts, tables)
def test_level_1_makes_text_and_table_absent(seed, text, table):
    corrupted = corrupt(record_of(f"a {text}", table), noisy(MODALITIES, 1.0, seed))
    assert (corrupted.text, present_cells(corrupted)) == ("", {})
    assert corrupted.present == ("image",)


@pytest.mark.parametrize("level", LEVELS)
def test_the_lost_share_is_about_the_level(level):
    corrupted = [corrupt(record_of(id=str(row)), noisy(("text", "table"), level, 1)) for row in range(10)]
    # 4000 draws: five standard deviations are at most 0.04.
    assert np.mean([1 - len(record.text.split()) / 400 for record in corrupted]) == pytest.approx(level, abs=0.04)
    assert np.mean([1 - len(present_cells(record)) / 400 for record in corrupted]) == pytest.approx(level, abs=0.04)


def test_the_loss_grows_with_the_level_in_every_modality():
    clean = record_of(side=32)
    corrupted = [corrupt(clean, noisy(MODALITIES, level, 1)) for level in LEVELS]
    for loss in (
        [np.abs(scaled_pixels(record) - scaled_pixels(clean)).mean() for record in corrupted],
        [-len(record.text.split()) for record in corrupted],
        [-len(present_cells(record)) for record in corrupted],
    ):
        assert loss == sorted(set(loss))


@pytest.mark.parametrize("level", [0.02, 0.05, 0.1])
def test_the_noise_on_mid_grey_has_the_level_as_standard_deviation(level):
    noise = scaled_pixels(corrupt(record_of(side=96), noisy(("image",), level, 1))) - 128 / 255
    assert noise.std() == pytest.approx(level, rel=0.03)
    assert abs(noise.mean()) < 0.03 * level
    # The three channels are drawn independently.
    assert abs(np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1]) < 0.05


@pytest.mark.parametrize("name", MODALITIES)
def test_noise_on_one_modality_keeps_the_others(name):
    clean = record_of()
    corrupted = corrupt(clean, noisy((name,), 0.5, 1))
    assert getattr(corrupted, name) != getattr(clean, name)
    assert replace(corrupted, **{name: getattr(clean, name)}) == clean


def test_noise_on_all_modalities_is_the_noise_on_each():
    all_noisy = corrupt(record_of(), noisy(MODALITIES, 0.5, 1))
    for name in MODALITIES:
        assert getattr(all_noisy, name) == getattr(corrupt(record_of(), noisy((name,), 0.5, 1)), name)


def test_records_and_seeds_have_different_draws():
    first, second, reseeded = (
        corrupt(record_of(id=id), noisy(MODALITIES, 0.5, seed)) for id, seed in [("a", 1), ("b", 1), ("a", 2)]
    )
    for name in MODALITIES:
        assert getattr(first, name) != getattr(second, name)
        assert getattr(first, name) != getattr(reseeded, name)


def test_validation_and_test_have_different_draws():
    config = RobustnessConfig()
    panel = conditions.validation_conditions(config)
    test = next(
        condition
        for condition in conditions.evaluation_conditions(config)
        if condition.modality == "all" and condition.level == panel[1].level
    )
    assert str(panel[1]) == str(test) == "noisy(all, 0.5)"
    for name in MODALITIES:
        assert getattr(corrupt(record_of(), panel[1]), name) != getattr(corrupt(record_of(), test), name)


@given(seeds, levels, targets)
def test_noise_neither_reads_nor_writes_the_label(seed, level, target):
    condition = noisy(target, level, seed)
    corrupted = corrupt(record_of(), condition)
    assert corrupted.target == "label"
    assert replace(corrupt(replace(record_of(), target="other"), condition), target="label") == corrupted


@given(targets, levels, seeds)
def test_absent_modalities_stay_absent(target, level, seed):
    record = Record("a", "a")
    assert corrupt(record, noisy(target, level, seed)) == record


@pytest.mark.parametrize("names", [("image",), ("text",), ("table",), ("image", "table"), MODALITIES])
def test_missing_removes_only_the_named_modalities(names):
    corrupted = corrupt(record_of(), Condition("missing", names, 1.0))
    assert corrupted.present == tuple(name for name in MODALITIES if name not in names)
    assert replace(corrupted, **{name: getattr(record_of(), name) for name in names}) == record_of()


@pytest.mark.parametrize("order", list(permutations(MODALITIES)))
def test_order_changes_only_the_reading_order(order):
    corrupted = corrupt(record_of(), Condition("order", order=order))
    assert corrupted.present == order
    assert replace(corrupted, order=MODALITIES) == record_of()


def test_an_unknown_kind_is_an_error():
    with pytest.raises(ValueError, match="sideways"):
        corrupt(record_of(), Condition("sideways"))
