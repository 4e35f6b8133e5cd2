"""What came back of what a corruption removed, on constructed records and by law."""

import json

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from project.analysis.recovery import Vocabulary, fate, recovery_table, removed_cells, removed_words, stated, tokens
from project.pipeline.text_log import COLUMNS

WORDS = st.lists(st.sampled_from("red blue hammer nail tram 12 3.0 the Of".split()), max_size=8).map(" ".join)


def row(record, described, aligned, table=None, condition="clean", split="test", group=None):
    return {
        "split": split,
        "condition": condition,
        "round": None,
        "record": record,
        "group": group or record,
        "target": "A",
        "described": json.dumps(described),
        "table": None if table is None else json.dumps(table),
        "aligned": json.dumps({"summary": aligned}),
        "read": aligned,
        "instruction": None,
        "fallback": None,
    }


def table_of(*rows):
    found = recovery_table(pd.DataFrame(rows, columns=COLUMNS).astype({"round": "Int64"}), 50)
    return {(line.condition, line.modality, line.measure): line for line in found.itertuples()}


@pytest.mark.parametrize(
    "text, found",
    [
        ("The Red-hot HAMMER", ("the", "red", "hot", "hammer")),
        ("3.0, 1,200.50 and 007", ("3", "1200.5", "and", "7")),
        ("-5 to −5, 5-10", ("-5", "to", "-5", "5", "10")),
        ("100 is not 1e2", ("100", "is", "not", "1", "e", "2")),
        ("12.05.2020", ("12.05.2020",)),
        ("Straße", ("strasse",)),
        ("!?", ()),
    ],
)
def test_tokens_are_words_without_case_and_numbers_by_value(text, found):
    assert tokens(text) == found


def test_a_value_stands_there_as_whole_words_in_its_order():
    text = tokens("A light blue van with 30 seats")
    assert stated(tokens("Light Blue"), text) and stated(tokens(30.0), text)
    for other in ("blue light", "seat", "3", "light van", ""):
        assert not stated(tokens(other), text)


def test_the_four_fates():
    value, others = tokens("steel"), [tokens("steel boat")]
    assert fate(value, tokens("made of Steel"), others) == "copied"
    assert fate(value, tokens("made of Steel"), [tokens("a boat")]) == "outside"
    assert fate(value, tokens("made of iron"), others, [tokens("iron")]) == "wrong"
    assert fate(value, tokens("made of iron"), others) == "lost"


@given(WORDS, WORDS)
def test_removed_words_are_in_the_one_and_not_in_the_other(before, after):
    for word in removed_words(tokens(before), tokens(after)):
        assert stated(word, tokens(before)) and not stated(word, tokens(after))
        assert word not in [("the",), ("of",)]
    assert removed_words(tokens(before), tokens(before)) == []


def test_cells_that_cannot_be_traced_are_counted_apart():
    cells = {"colour": "red", "second": "red", "vaccinated": "yes", "age": 3.0, "breed": "long and cut off"}
    left = {"colour": None, "second": "red", "vaccinated": None, "age": None, "breed": None}
    before, after = tokens("The colour is red. The second is red. Vaccinated: yes. The age is 3."), tokens("second red")
    assert removed_cells(cells, left, before, after) == ({"age": ("3",)}, 2)
    # A cell that holds another value now is gone too; one that is written otherwise is not.
    swapped = removed_cells({"colour": "red", "age": 3.0}, {"colour": "blue", "age": "3"}, before, tokens("blue 3"))
    assert swapped == ({"colour": ("red",)}, 0)


def test_the_guess_is_the_most_frequent_value_and_rivals_are_what_nothing_told():
    vocabulary = Vocabulary(
        [{"colour": "red", "ok": "yes"}, {"colour": "Red"}, {"colour": "light blue"}, {"colour": "green", "ok": None}]
    )
    assert vocabulary.guess == {"colour": ("red",)}
    said = tokens("a light blue and green thing, maybe red")
    assert vocabulary.rivals("colour", said, [tokens("green grass"), ("red",)]) == [("light", "blue")]
    assert vocabulary.rivals("size", said, []) == []


def constructed():
    """Records of which word and cell are removed, each with another fate; the training rows know three colours."""
    train = [
        row(f"r{index}", {"table": f"The colour is {colour}."}, "x", {"colour": colour}, split="train")
        for index, colour in enumerate(["red", "red", "blue", "grey"])
    ]
    told = "The colour is red."
    clean = {"text": "an old hammer", "table": told}
    cases = {  # corrupted text -> aligned text
        "a-copied": ("an old red hammer", "an old red hammer"),
        "b-outside": ("an old hammer", "an old hammer, surely red"),
        "c-wrong": ("an old hammer", "an old hammer, blue"),
        "d-lost": ("an old hammer", "an old hammer"),
        "e-distractor": ("a blue hammer", "a blue hammer, infrared reddish"),  # blue was told; no whole word is red
    }
    rows = []
    for record, (text, aligned) in cases.items():
        rows.append(row(record, {**clean, "text": text}, "x", {"colour": "red"}))
        rows.append(row(record, {"text": text}, aligned, {"colour": None}, "noisy(table, 0.5)"))
    return [*train, *rows]


def test_counts_on_constructed_records():
    found = table_of(*constructed())
    counts = {
        measure: found["noisy(table, 0.5)", "table", measure].count
        for measure in ("right", "copied", "outside", "wrong", "lost", "guess")
    }
    assert counts == {"right": 2, "copied": 1, "outside": 1, "wrong": 1, "lost": 2, "guess": 5}
    right = found["noisy(table, 0.5)", "table", "right"]
    assert right.n == 5 and right.value == 0.4 and right.low <= 0.4 <= right.high


def test_words_of_a_missing_modality_and_their_guess():
    rows = [row(name, {"image": "a red boat", "text": "sails well"}, "x") for name in ("a", "b")]
    rows += [
        row("a", {"text": "sails well"}, "a boat that sails well", None, "missing(image)"),
        row("b", {"text": "sails well"}, "sails well", None, "missing(image)"),
    ]
    found = table_of(*rows)
    assert found["missing(image)", "image", "outside"].count == 1  # boat
    assert found["missing(image)", "image", "lost"].count == 3
    # The next record's text says boat of record b, which lost it.
    assert found["missing(image)", "image", "guess"].count == 1
    assert ("missing(image)", "image", "wrong") not in found


@settings(max_examples=25)
@given(WORDS, WORDS, WORDS)
def test_nothing_comes_from_outside_where_the_aligned_text_is_the_corrupted_description(text, left, table):
    rows = [row(name, {"text": text, "table": table}, "x", {"cell": table}) for name in ("a", "b")]
    rows += [row(name, {"text": left, "table": ""}, left, {"cell": None}, "noisy(all, 0.5)") for name in ("a", "b")]
    found = table_of(*rows)
    assert not any(line.count for (_, _, measure), line in found.items() if measure in ("outside", "wrong"))


@settings(max_examples=25)
@given(WORDS, WORDS, WORDS)
def test_fates_share_out_what_was_removed(text, left, aligned):
    rows = [row(name, {"text": text}, "x") for name in ("a", "b")]
    rows += [row(name, {"text": left}, aligned, None, "noisy(text, 0.5)") for name in ("a", "b")]
    found = table_of(*rows)
    if found:
        counts = [found["noisy(text, 0.5)", "text", name].count for name in ("copied", "outside", "lost")]
        assert sum(counts) == found["noisy(text, 0.5)", "text", "right"].n
