"""Laws of natural corruptions: no change at level 0, more at a higher level, the same for the same seed and record."""

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
    """Return an image like a photo: slow changes of colour and sharp shapes."""
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


def corrupted(record, name, level, seed=1):
    return corrupt(record, natural(name, level, seed), DONORS)


def value(record, name):
    """Return the value of the modality that the corruption changes; an image as pixels."""
    content = getattr(record, NATURAL[name].modality)
    return pixels(content).tolist() if isinstance(content, Image.Image) else content


def edit_distance(first, second):
    """Return the Levenshtein distance."""
    row = np.arange(len(second) + 1)
    for number, letter in enumerate(first, start=1):
        step = np.minimum(row[1:] + 1, row[:-1] + [letter != other_letter for other_letter in second])
        row = np.r_[number, step] - np.arange(len(second) + 1)
        row = np.minimum.accumulate(row) + np.arange(len(second) + 1)
    return row[-1]


def distance(name, before, after):
    """Return the distance to the clean value: in pixel values, letters, or the share of changed cells."""
    match NATURAL[name].modality:
        case "image":
            return np.abs(pixels(before) / 255 - pixels(after) / 255).mean()
        case "text":
            return edit_distance(before, after)
    return np.mean([before[column] != after[column] for column in before])


@given(names, seeds, st.text(max_size=60), tables)
def test_level_0_is_the_identity(name, seed, text, table):
    record = record_of(text=text, table=table, side=8)
    damage = NATURAL[name]
    before = getattr(record, damage.modality)
    donors = (DONORS,) if damage.from_others else ()
    after = damage.apply(before, 0.0, np.random.default_rng(seed), *donors)
    assert value(replace(record, **{damage.modality: after}), name) == value(record, name)
    assert corrupted(record, name, 0.0, seed) is record


@given(names, seeds, levels, st.text(max_size=60), tables)
@example("typing", 0, 1.0, "\x1c\x85 a\u3000İ ß", {})
@example("swapped", 0, 1.0, "", {"a\x00": "1", "a": "2"})
def test_any_value_can_be_corrupted_reproducibly(name, seed, level, text, table):
    record = record_of(text=text, table=table, side=8)
    first, second = corrupted(record, name, level, seed), corrupted(record, name, level, seed)
    assert value(first, name) == value(second, name)
    modality = NATURAL[name].modality
    assert replace(first, **{modality: None}) == replace(record, **{modality: None})
    if modality == "table":
        assert list(first.table) == list(table)
        assert [column for column in table if first.table[column] is None] == [
            column for column in table if table[column] is None
        ]


@pytest.mark.parametrize("name", NATURAL)
def test_the_mean_change_grows_with_the_level(name):
    records = [record_of(str(row), seed=row) for row in range(15)]
    modality = NATURAL[name].modality
    distances = [
        np.mean(
            [
                distance(name, getattr(record, modality), getattr(corrupted(record, name, level), modality))
                for record in records
            ]
        )
        for level in (0.0, *LEVELS, 1.0)
    ]
    # A crop's distance saturates once the window no longer resembles the full image.
    slack = 0.01 if name == "crop" else 0
    steps = zip(distances, distances[1:], strict=False)
    assert distances[0] == 0 and all(more > less - slack for less, more in steps)
    assert distances[-1] > distances[1]


@settings(max_examples=40)
@given(st.sampled_from(["typing", "units", "swapped", "stale"]), seeds, levels, levels)
def test_changes_at_a_lower_level_stay_at_a_higher_level(name, seed, first, second):
    low, high = sorted([first, second])
    clean, less, more = (value(corrupted(record_of(side=8), name, level, seed), name) for level in (0, low, high))
    if NATURAL[name].modality == "text":
        clean, less, more = (dict(enumerate(text.split())) for text in (clean, less, more))
    changed = {key for key in clean if less[key] != clean[key]}
    assert all(more[key] == less[key] for key in changed)


@settings(max_examples=40)
@given(st.floats(0.05, 0.9), st.floats(0.05, 0.9), seeds)
def test_a_closer_crop_lies_within_a_wider_one(first, second, seed):
    down, right = np.mgrid[:128, :128] * 2
    ramp = Record("a", "a", Image.fromarray(np.stack([down, right, 0 * down], axis=-1).astype(np.uint8)))
    closer, wider = (
        pixels(corrupted(ramp, "crop", level, seed).image).astype(int)
        for level in (max(first, second), min(first, second))
    )
    for channel in (0, 1):
        assert closer[..., channel].min() >= wider[..., channel].min() - 2
        assert closer[..., channel].max() <= wider[..., channel].max() + 2
        assert np.ptp(closer[..., channel]) == pytest.approx((1 - max(first, second)) * 254, abs=4)


@pytest.mark.parametrize("name", ["typing", "units", "stale"])
@pytest.mark.parametrize("level", LEVELS)
def test_the_changed_share_is_about_the_level(name, level):
    records = [record_of(str(row), text=" ".join(["mutable"] * 100), side=8) for row in range(20)]
    changes = []
    for record in records:
        before, after = value(record, name), value(corrupted(record, name, level), name)
        if name == "typing":
            before, after = dict(enumerate(before.split())), dict(enumerate(after.split()))
        changes += [before[key] != after[key] for key in before if before[key] is not None]
    assert len(changes) >= 400  # three and a half standard deviations are at most 0.09
    assert np.mean(changes) == pytest.approx(level, abs=0.09)


def test_records_and_seeds_have_different_draws():
    for name in set(NATURAL) - {"blur", "jpeg", "darkness", "truncation"}:  # these draw nothing
        first, second, reseeded = (
            value(corrupted(record_of(id), name, 0.5, seed), name) for id, seed in [("a", 1), ("b", 1), ("a", 2)]
        )
        assert first != second and first != reseeded


@given(names, levels, seeds)
def test_absent_modalities_stay_absent_and_clean_needs_no_donors(name, level, seed):
    record = Record("a", "a")
    assert corrupted(record, name, level, seed) is record
    assert corrupt(record, CLEAN) is record


def test_every_picture_is_corrupted_and_a_ready_description_stays():
    record = Record("a", "a", ("It shows a cat.", picture(0), picture(1)))
    for name in ("blur", "jpeg", "darkness", "crop"):
        description, *images = corrupted(record, name, 0.5).image
        assert description == "It shows a cat."
        assert all((pixels(new) != pixels(old)).any() for new, old in zip(images, record.image[1:], strict=True))


# Typing and scanning


@given(seeds, st.text("abcdefghijklmnopqrstuvwxyzабвгдежз", min_size=2, max_size=9))
def test_a_typing_error_is_one_error(seed, word):
    wrong = typing_errors(word, 1.0, np.random.default_rng(seed))
    assert wrong != word and edit_distance(word, wrong) <= 2 and abs(len(wrong) - len(word)) <= 1
    assert edit_distance(word, wrong) == 1 or sorted(word) == sorted(wrong)


@given(seeds)
def test_a_mistyped_number_stays_a_number_and_other_signs_stay_unchanged(seed):
    assert typing_errors("2017", 1.0, np.random.default_rng(seed)).isdecimal()
    assert typing_errors(" …  很可爱\n!", 1.0, np.random.default_rng(seed)) == " …  很可爱\n!"


def test_keys_are_neighbours_of_each_other():
    assert set(NEIGHBOURS) == {key for rows in KEYBOARDS for row in rows for key in row}
    assert all(
        key in NEIGHBOURS[neighbour] and neighbour != key
        for key, neighbours in NEIGHBOURS.items()
        for neighbour in neighbours
    )
    assert set(NEIGHBOURS["g"]) == set("fhtyvb") and set(NEIGHBOURS["п"]) == set("аренми")


def test_capitals_stay_capitals():
    wrong = {typing_errors("Q", 1.0, np.random.default_rng(seed)) for seed in range(40)}
    assert wrong == {"W", "A", "QQ"}


def test_a_scanner_confuses_letters_and_splits_and_joins_words():
    wrong = {ocr_errors("barn in", 1.0, np.random.default_rng(seed)) for seed in range(300)}
    assert {"bam ln", "ba rn i n", "barnln"} <= wrong


# Tables


def change_units(table, seed=0):
    return unit_changes(table, 1.0, np.random.default_rng(seed))


def test_a_quantity_keeps_its_meaning_in_another_unit():
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
    assert change_units(table) == {
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
    assert {change_units({"a": "12"}, seed)["a"] for seed in range(20)} == {"12000", "0.012"}
    assert {change_units({"a": 2.5}, seed)["a"] for seed in range(20)} == {2500.0, 0.0025}
    assert {change_units({"a": "-0.5"}, seed)["a"] for seed in range(20)} == {"-500", "-0.0005"}


@given(seeds, st.integers(2, 9))
def test_swapped_cells_are_the_same_cells_in_other_columns(seed, size):
    table = {f"c{number}": str(number) for number in range(size)} | {"gap": None}
    swapped = swapped_cells(table, 1.0, np.random.default_rng(seed))
    moved = {name for name in table if swapped[name] != table[name]}
    assert len(moved) == size - size % 2 and swapped["gap"] is None
    assert sorted(map(str, swapped.values())) == sorted(map(str, table.values()))
    assert all(swapped[f"c{swapped[name][0]}"] == table[name] for name in moved)


def test_a_stale_cell_comes_from_another_row_and_the_same_column():
    stale = corrupted(record_of(), "stale", 1.0).table
    rows = {cell.split("/")[0] for cell in stale.values() if cell}
    assert len(rows) > 3 and stale["gap"] is None
    assert all(cell.split("/")[1] == name for name, cell in stale.items() if cell)


def test_stale_cells_skip_rows_without_the_cell_and_the_row_itself():
    own = Record("own", "g", table={"a": "1", "b": "2"})
    donors = [own, Record("none", "g"), Record("gap", "g", table={"a": None}), Record("has", "g", table={"a": "9"})]
    for seed in range(10):
        assert stale_cells(own.table, 1.0, np.random.default_rng(seed), donors) == {"a": "9", "b": "2"}


def test_stale_cells_without_training_rows_are_an_error():
    with pytest.raises(ValueError, match="training rows"):
        corrupt(record_of(), natural("stale", 0.5, 1))


def test_the_pipeline_takes_stale_cells_from_the_training_rows(pipeline_of, records):
    pipeline = pipeline_of("method=plain")
    (trace,) = pipeline.transform(records[5:6], natural("stale", 1.0, 1))
    others = {record.table["weight"] for record in records[:3]}
    assert trace.corrupted.table["weight"] in others and trace.record.table["weight"] == "930"
    assert trace.corrupted.table["weight"] in dict(trace.described)["table"]
