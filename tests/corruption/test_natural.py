"""The laws of realistic damage: nothing at level 0, more with the level, the same for the same seed and record."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from project.corruption.conditions import CLEAN, natural
from project.corruption.natural import NATURAL
from project.corruption.table import stale_cells, swapped_cells, unit_changes
from project.corruption.text import KEYBOARDS, NEIGHBOURS, ocr_errors, typing_errors
from project.data.images import pixels
from project.data.record import Record
from project.pipeline.corrupt import corrupt

LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)
WORDS = (
    "A calm tom cat, 3 years old, that likes tuna.\nFound near my home on Monday and needs a garden of its own. "
    "Часы наручные, почти новые, торг уместен."
)
TABLE = {f"column {number}": f"{number} kg" if number % 3 else str(number) for number in range(1, 21)} | {"gap": None}
DONORS = [Record(f"donor {row}", "d", table={name: f"{row}/{name}" for name in TABLE}) for row in range(9)]
names = st.sampled_from(list(NATURAL))
levels = st.floats(0, 1)
seeds = st.integers(0, 2**31)
quantities = st.from_regex(r"-?[0-9]{1,9}(\.[0-9]{1,4})?( ?(kg|years|percent))?", fullmatch=True)
tables = st.dictionaries(
    st.text(max_size=4), st.none() | st.floats(allow_nan=False) | st.text(max_size=5) | quantities, max_size=6
)


def picture(seed=0, side=64):
    """A photo of sorts: slow changes of colour and sharp shapes."""
    down, right = np.mgrid[:side, :side] / side
    draw = np.random.default_rng(seed)
    waves = [0.5 + 0.4 * np.sin(draw.uniform(1, 9) * down + draw.uniform(1, 9) * right) for _ in range(3)]
    image = Image.fromarray((255 * np.stack(waves, axis=-1)).astype(np.uint8))
    for _ in range(6):
        x, y = draw.integers(0, side * 3 // 4, 2).tolist()
        colour = tuple(draw.integers(0, 255, 3).tolist())
        ImageDraw.Draw(image).ellipse((x, y, x + side // 5, y + side // 5), fill=colour)
    return image


def record_of(id="a", text=WORDS, table=TABLE, seed=0, side=64):
    return Record(id, id, picture(seed, side), text, table, "label")


def damaged(record, name, level, seed=1):
    return corrupt(record, natural(name, level, seed), DONORS)


def value(record, name):
    """What the damage is done to, images by their pixels."""
    found = getattr(record, NATURAL[name].modality)
    return pixels(found).tolist() if isinstance(found, Image.Image) else found


def edits(one, other):
    """The least number of letters to insert, delete or replace."""
    row = np.arange(len(other) + 1)
    for number, letter in enumerate(one, start=1):
        step = np.minimum(row[1:] + 1, row[:-1] + [letter != its for its in other])
        row = np.r_[number, step] - np.arange(len(other) + 1)
        row = np.minimum.accumulate(row) + np.arange(len(other) + 1)
    return row[-1]


def distance(name, before, after):
    """How far a value is from the clean one: pixels, letters, or the share of the cells."""
    match NATURAL[name].modality:
        case "image":
            return np.abs(pixels(before) / 255 - pixels(after) / 255).mean()
        case "text":
            return edits(before, after)
    return np.mean([before[column] != after[column] for column in before])


@given(names, seeds, st.text(max_size=60), tables)
def test_level_0_is_the_identity(name, seed, text, table):
    record = record_of(text=text, table=table, side=8)
    damage = NATURAL[name]
    before = getattr(record, damage.modality)
    donors = (DONORS,) if damage.from_others else ()
    after = damage.apply(before, 0.0, np.random.default_rng(seed), *donors)
    assert value(replace(record, **{damage.modality: after}), name) == value(record, name)
    assert damaged(record, name, 0.0, seed) is record


@given(names, seeds, levels, st.text(max_size=60), tables)
@example("typing", 0, 1.0, "\x1c\x85 a\u3000İ ß", {})
@example("swapped", 0, 1.0, "", {"a\x00": "1", "a": "2"})
def test_any_value_can_be_damaged_and_twice_alike(name, seed, level, text, table):
    record = record_of(text=text, table=table, side=8)
    once, again = damaged(record, name, level, seed), damaged(record, name, level, seed)
    assert value(once, name) == value(again, name)
    modality = NATURAL[name].modality
    assert replace(once, **{modality: None}) == replace(record, **{modality: None})
    if modality == "table":
        assert list(once.table) == list(table)
        assert [column for column in table if once.table[column] is None] == [
            column for column in table if table[column] is None
        ]


@pytest.mark.parametrize("name", NATURAL)
def test_the_damage_grows_with_the_level_on_average(name):
    records = [record_of(str(row), seed=row) for row in range(15)]
    modality = NATURAL[name].modality
    found = [
        np.mean(
            [
                distance(name, getattr(record, modality), getattr(damaged(record, name, level), modality))
                for record in records
            ]
        )
        for level in (0.0, *LEVELS, 1.0)
    ]
    # Of a photo, what a window of it shows differs ever more, until it no longer looks like the whole in any place.
    slack = 0.01 if name == "crop" else 0
    assert found[0] == 0 and all(more > less - slack for less, more in zip(found, found[1:], strict=False))
    assert found[-1] > found[1]


@settings(max_examples=40)
@given(st.sampled_from(["typing", "units", "swapped", "stale"]), seeds, levels, levels)
def test_what_is_hurt_at_a_lower_level_is_hurt_alike_at_a_higher_one(name, seed, one, other):
    low, high = sorted([one, other])
    clean, less, more = (value(damaged(record_of(side=8), name, level, seed), name) for level in (0, low, high))
    if NATURAL[name].modality == "text":
        clean, less, more = (dict(enumerate(text.split())) for text in (clean, less, more))
    hurt = {place for place in clean if less[place] != clean[place]}
    assert all(more[place] == less[place] for place in hurt)


@settings(max_examples=40)
@given(st.floats(0.05, 0.9), st.floats(0.05, 0.9), seeds)
def test_a_closer_crop_lies_within_a_wider_one(one, other, seed):
    down, right = np.mgrid[:128, :128] * 2
    ramp = Record("a", "a", Image.fromarray(np.stack([down, right, 0 * down], axis=-1).astype(np.uint8)))
    closer, wider = (
        pixels(damaged(ramp, "crop", level, seed).image).astype(int) for level in (max(one, other), min(one, other))
    )
    for channel in (0, 1):
        assert closer[..., channel].min() >= wider[..., channel].min() - 2
        assert closer[..., channel].max() <= wider[..., channel].max() + 2
        assert np.ptp(closer[..., channel]) == pytest.approx((1 - max(one, other)) * 254, abs=4)


@pytest.mark.parametrize("name", ["typing", "units", "stale"])
@pytest.mark.parametrize("level", LEVELS)
def test_about_a_share_of_level_is_hurt(name, level):
    records = [record_of(str(row), text=" ".join(["mutable"] * 100), side=8) for row in range(20)]
    hurt = []
    for record in records:
        before, after = value(record, name), value(damaged(record, name, level), name)
        if name == "typing":
            before, after = dict(enumerate(before.split())), dict(enumerate(after.split()))
        hurt += [before[place] != after[place] for place in before if before[place] is not None]
    assert len(hurt) >= 400  # three and a half standard deviations are at most 0.09
    assert np.mean(hurt) == pytest.approx(level, abs=0.09)


def test_records_seeds_and_corruptions_draw_apart():
    for name in set(NATURAL) - {"blur", "jpeg", "darkness", "truncation"}:  # which draw nothing
        first, other, reseeded = (
            value(damaged(record_of(id), name, 0.5, seed), name) for id, seed in [("a", 1), ("b", 1), ("a", 2)]
        )
        assert first != other and first != reseeded


@given(names, levels, seeds)
def test_what_is_absent_stays_absent_and_clean_takes_from_nobody(name, level, seed):
    record = Record("a", "a")
    assert damaged(record, name, level, seed) is record
    assert corrupt(record, CLEAN) is record


def test_several_pictures_are_damaged_each_and_a_ready_description_stays():
    record = Record("a", "a", ("It shows a cat.", picture(0), picture(1)))
    for name in ("blur", "jpeg", "darkness", "crop"):
        told, *shown = damaged(record, name, 0.5).image
        assert told == "It shows a cat."
        assert all((pixels(new) != pixels(old)).any() for new, old in zip(shown, record.image[1:], strict=True))


# Typing and scanning


@given(seeds, st.text("abcdefghijklmnopqrstuvwxyzабвгдежз", min_size=2, max_size=9))
def test_a_typing_error_is_one_error(seed, word):
    wrong = typing_errors(word, 1.0, np.random.default_rng(seed))
    assert wrong != word and edits(word, wrong) <= 2 and abs(len(wrong) - len(word)) <= 1
    assert edits(word, wrong) == 1 or sorted(word) == sorted(wrong)


@given(seeds)
def test_a_mistyped_number_stays_a_number_and_signs_stay_as_they_are(seed):
    assert typing_errors("2017", 1.0, np.random.default_rng(seed)).isdecimal()
    assert typing_errors(" …  很可爱\n!", 1.0, np.random.default_rng(seed)) == " …  很可爱\n!"


def test_keys_are_neighbours_of_each_other():
    assert set(NEIGHBOURS) == {key for rows in KEYBOARDS for row in rows for key in row}
    assert all(key in NEIGHBOURS[near] and near != key for key, nears in NEIGHBOURS.items() for near in nears)
    assert set(NEIGHBOURS["g"]) == set("fhtyvb") and set(NEIGHBOURS["п"]) == set("аренми")


def test_capitals_stay_capitals():
    wrong = {typing_errors("Q", 1.0, np.random.default_rng(seed)) for seed in range(40)}
    assert wrong == {"W", "A", "QQ"}


def test_a_scan_confuses_splits_and_joins():
    wrong = {ocr_errors("barn in", 1.0, np.random.default_rng(seed)) for seed in range(300)}
    assert {"bam ln", "ba rn i n", "barnln"} <= wrong


# Tables


def told(table, seed=0):
    return unit_changes(table, 1.0, np.random.default_rng(seed))


def test_a_quantity_means_the_same_in_its_other_unit():
    table = {
        "weight": "1.50 kg",
        "age": "2 years and 2 months",
        "fee": "50 ringgit",
        "rate": "95 percent",
        "bag": "250 g",
        "вес": "3 кг",
        "bathroom": "1 shared bath",
        "model": "A5 m3",
        "word": "kg",
    }
    assert told(table) == {
        "weight": "1500 g",
        "age": "24 months and 60 days",
        "fee": "5000 sen",
        "rate": "950 per mille",
        "bag": "0.25 kg",
        "вес": "3000 г",
        "bathroom": "1 shared bath",
        "model": "A5 m3",
        "word": "kg",
    }


def test_a_plain_number_becomes_a_thousand_times_greater_or_smaller():
    assert {told({"a": "12"}, seed)["a"] for seed in range(20)} == {"12000", "0.012"}
    assert {told({"a": 2.5}, seed)["a"] for seed in range(20)} == {2500.0, 0.0025}
    assert {told({"a": "-0.5"}, seed)["a"] for seed in range(20)} == {"-500", "-0.0005"}


@given(seeds, st.integers(2, 9))
def test_swapped_cells_are_the_same_cells_in_other_columns(seed, size):
    table = {f"c{number}": str(number) for number in range(size)} | {"gap": None}
    swapped = swapped_cells(table, 1.0, np.random.default_rng(seed))
    moved = {name for name in table if swapped[name] != table[name]}
    assert len(moved) == size - size % 2 and swapped["gap"] is None
    assert sorted(map(str, swapped.values())) == sorted(map(str, table.values()))
    assert all(swapped[f"c{swapped[name][0]}"] == table[name] for name in moved)


def test_a_stale_cell_is_that_of_another_row_in_the_same_column():
    stale = damaged(record_of(), "stale", 1.0).table
    rows = {cell.split("/")[0] for cell in stale.values() if cell}
    assert len(rows) > 3 and stale["gap"] is None
    assert all(cell.split("/")[1] == name for name, cell in stale.items() if cell)


def test_stale_cells_pass_over_rows_without_the_cell_and_the_row_itself():
    own = Record("own", "g", table={"a": "1", "b": "2"})
    donors = [own, Record("none", "g"), Record("gap", "g", table={"a": None}), Record("has", "g", table={"a": "9"})]
    for seed in range(10):
        assert stale_cells(own.table, 1.0, np.random.default_rng(seed), donors) == {"a": "9", "b": "2"}


def test_stale_cells_without_training_rows_are_an_error():
    with pytest.raises(ValueError, match="training rows"):
        corrupt(record_of(), natural("stale", 0.5, 1))


def test_the_pipeline_takes_stale_cells_from_its_training_rows(pipeline_of, records):
    pipeline = pipeline_of("method=plain")
    (trace,) = pipeline.transform(records[5:6], natural("stale", 1.0, 1))
    others = {record.table["weight"] for record in records[:3]}
    assert trace.corrupted.table["weight"] in others and trace.record.table["weight"] == "930"
    assert trace.corrupted.table["weight"] in dict(trace.described)["table"]
