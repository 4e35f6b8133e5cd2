"""Recovery of removed cells and words, on constructed records and by invariants."""

import json

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from project.analysis.recovery import (
    Vocabulary,
    is_stated,
    recovery_outcome,
    recovery_table,
    removed_cells,
    removed_words,
    tokens,
)
from project.pipeline.text_log import TEXT_COLUMNS

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


def recovery_rows(*rows):
    table = recovery_table(pd.DataFrame(rows, columns=TEXT_COLUMNS).astype({"round": "Int64"}), 50)
    return {(line.condition, line.modality, line.measure): line for line in table.itertuples()}


@pytest.mark.parametrize(
    "text, expected",
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
def test_tokens_are_words_without_case_and_numbers_by_value(text, expected):
    assert tokens(text) == expected


def test_a_value_is_stated_as_whole_words_in_order():
    text = tokens("A light blue van with 30 seats")
    assert is_stated(tokens("Light Blue"), text) and is_stated(tokens(30.0), text)
    for other in ("blue light", "seat", "3", "light van", ""):
        assert not is_stated(tokens(other), text)


def test_the_four_outcomes():
    value, others = tokens("steel"), [tokens("steel boat")]
    assert recovery_outcome(value, tokens("made of Steel"), others) == "copied"
    assert recovery_outcome(value, tokens("made of Steel"), [tokens("a boat")]) == "outside"
    assert recovery_outcome(value, tokens("made of iron"), others, [tokens("iron")]) == "wrong"
    assert recovery_outcome(value, tokens("made of iron"), others) == "lost"


@given(WORDS, WORDS)
def test_removed_words_are_in_the_text_before_and_not_after(before, after):
    for word in removed_words(tokens(before), tokens(after)):
        assert is_stated(word, tokens(before)) and not is_stated(word, tokens(after))
        assert word not in [("the",), ("of",)]
    assert removed_words(tokens(before), tokens(before)) == []


def test_untraceable_cells_are_counted_separately():
    cells = {"colour": "red", "second": "red", "vaccinated": "yes", "age": 3.0, "breed": "long and cut off"}
    left = {"colour": None, "second": "red", "vaccinated": None, "age": None, "breed": None}
    before, after = tokens("The colour is red. The second is red. Vaccinated: yes. The age is 3."), tokens("second red")
    assert removed_cells(cells, left, before, after) == ({"age": ("3",)}, 2)
    # A changed value is removed as well; another spelling of the same number is not.
    swapped = removed_cells({"colour": "red", "age": 3.0}, {"colour": "blue", "age": "3"}, before, tokens("blue 3"))
    assert swapped == ({"colour": ("red",)}, 0)


def test_the_guess_is_the_most_frequent_value_and_rivals_are_in_no_description():
    vocabulary = Vocabulary(
        [{"colour": "red", "ok": "yes"}, {"colour": "Red"}, {"colour": "light blue"}, {"colour": "green", "ok": None}]
    )
    assert vocabulary.most_frequent == {"colour": ("red",)}
    aligned = tokens("a light blue and green thing, maybe red")
    assert vocabulary.rivals("colour", aligned, [tokens("green grass"), ("red",)]) == [("light", "blue")]
    assert vocabulary.rivals("size", aligned, []) == []


def constructed():
    """Return records with a removed cell, one per outcome; the training rows have three colours."""
    train = [
        row(f"r{index}", {"table": f"The colour is {colour}."}, "x", {"colour": colour}, split="train")
        for index, colour in enumerate(["red", "red", "blue", "grey"])
    ]
    description = "The colour is red."
    clean = {"text": "an old hammer", "table": description}
    cases = {  # corrupted text -> aligned text
        "a-copied": ("an old red hammer", "an old red hammer"),
        "b-outside": ("an old hammer", "an old hammer, surely red"),
        "c-wrong": ("an old hammer", "an old hammer, blue"),
        "d-lost": ("an old hammer", "an old hammer"),
        # The description has blue, and red is not a whole word.
        "e-distractor": ("a blue hammer", "a blue hammer, infrared reddish"),
    }
    rows = []
    for record, (text, aligned) in cases.items():
        rows.append(row(record, {**clean, "text": text}, "x", {"colour": "red"}))
        rows.append(row(record, {"text": text}, aligned, {"colour": None}, "noisy(table, 0.5)"))
    return [*train, *rows]


def test_counts_on_constructed_records():
    table = recovery_rows(*constructed())
    counts = {
        measure: table["noisy(table, 0.5)", "table", measure].count
        for measure in ("right", "copied", "outside", "wrong", "lost", "guess")
    }
    assert counts == {"right": 2, "copied": 1, "outside": 1, "wrong": 1, "lost": 2, "guess": 5}
    right = table["noisy(table, 0.5)", "table", "right"]
    assert right.n == 5 and right.value == 0.4 and right.low <= 0.4 <= right.high


def test_words_of_a_missing_modality_and_their_guess():
    rows = [row(name, {"image": "a red boat", "text": "sails well"}, "x") for name in ("a", "b")]
    rows += [
        row("a", {"text": "sails well"}, "a boat that sails well", None, "missing(image)"),
        row("b", {"text": "sails well"}, "sails well", None, "missing(image)"),
    ]
    table = recovery_rows(*rows)
    assert table["missing(image)", "image", "outside"].count == 1  # boat
    assert table["missing(image)", "image", "lost"].count == 3
    # The next record's aligned text has the word boat, which record b lost.
    assert table["missing(image)", "image", "guess"].count == 1
    assert ("missing(image)", "image", "wrong") not in table


@settings(max_examples=25)
@given(WORDS, WORDS, WORDS)
def test_an_aligned_text_equal_to_the_corrupted_description_adds_nothing(text, corrupted, cells):
    rows = [row(name, {"text": text, "table": cells}, "x", {"cell": cells}) for name in ("a", "b")]
    rows += [
        row(name, {"text": corrupted, "table": ""}, corrupted, {"cell": None}, "noisy(all, 0.5)") for name in ("a", "b")
    ]
    table = recovery_rows(*rows)
    assert not any(line.count for (_, _, measure), line in table.items() if measure in ("outside", "wrong"))


@settings(max_examples=25)
@given(WORDS, WORDS, WORDS)
def test_the_outcomes_add_up_to_the_removed_words(text, corrupted, aligned):
    rows = [row(name, {"text": text}, "x") for name in ("a", "b")]
    rows += [row(name, {"text": corrupted}, aligned, None, "noisy(text, 0.5)") for name in ("a", "b")]
    table = recovery_rows(*rows)
    if table:
        counts = [table["noisy(text, 0.5)", "text", name].count for name in ("copied", "outside", "lost")]
        assert sum(counts) == table["noisy(text, 0.5)", "text", "right"].n
