"""Near-copies of training rows are detected by text and table."""

import random

import pytest

from project.data import near_duplicates as module
from project.data.near_duplicates import Copy, near_copies
from project.data.record import Record
from project.data.rows import Rows
from project.data.target import Target

WORDS = [f"w{number}" for number in range(500)]


def record(id, text=None, table=None, **values):
    return Record(id, values.pop("group", id), None, text, table, "x", **values)


def rows(train, val=(), test=()):
    return Rows(list(train), list(val), list(test), Target("class", "x", ("x", "y")), ("text", "table"))


def words(seed, count=40):
    return random.Random(seed).choices(WORDS, k=count)


def test_an_equal_row_has_similarity_1_in_any_group():
    table = {"price": "5", "city": None}
    train = [record("a", " ".join(words(0)), table), record("b", " ".join(words(1)))]
    copies = near_copies(
        rows(
            train,
            val=[record("c", " ".join(words(0)), table, group="other")],
            test=[record("d", " ".join(words(1)), group="b")],
        )
    )
    assert copies.pairs == (Copy("test", "d", "b", 1.0), Copy("val", "c", "a", 1.0))


def test_a_text_with_one_changed_word_is_a_near_copy():
    text = words(2)
    changed = [*text[:-1], "other"]
    copies = near_copies(
        rows([record("a", " ".join(text))], test=[record("b", " ".join(changed)), record("c", " ".join(words(3)))])
    )
    (pair,) = copies.pairs
    assert (pair.row, pair.train) == ("b", "a") and 0.9 < pair.similarity < 1


def test_the_same_words_in_another_order_are_less_similar():
    text = words(4)
    shuffled = random.Random(0).sample(text, len(text))
    train, test = [record("a", " ".join(text))], [record("b", " ".join(shuffled))]
    assert not near_copies(rows(train, test=test)).pairs
    assert near_copies(rows(train, test=test), threshold=0.4).pairs


def test_cells_count_and_missing_cells_do_not():
    cells = {f"c{number}": str(number) for number in range(9)}
    train = [record("a", table=cells)]
    near, far = {**cells, "c0": None}, {column: cell + "0" for column, cell in cells.items()}
    copies = near_copies(rows(train, test=[record("b", table=near), record("c", table=far)]))
    assert [pair.row for pair in copies.pairs] == ["b"]


def test_the_order_of_the_rows_does_not_matter():
    train = [record(str(number), " ".join(words(number))) for number in range(30)]
    test = [record(f"t{number}", " ".join(words(number % 40))) for number in range(60)]
    expected = near_copies(rows(train, test=test)).pairs
    assert len(expected) == 50
    assert near_copies(rows(train[::-1], test=test[::-1])).pairs == expected


def test_rows_without_words_have_no_near_copy():
    assert near_copies(rows([record("a"), record("b", "!")], test=[record("c"), record("d", "!")])).pairs == ()
    assert near_copies(rows([record("a", "x")])).pairs == near_copies(rows([], [record("a", "x")])).pairs == ()


@pytest.mark.parametrize("block", [1, 3])
def test_the_block_size_does_not_change_the_result(monkeypatch, block):
    split = rows(
        [record(str(number), " ".join(words(number))) for number in range(8)],
        test=[record(f"t{number}", " ".join(words(number))) for number in range(10)],
    )
    expected = near_copies(split)
    monkeypatch.setattr(module, "_BLOCK_ROWS", block)
    assert near_copies(split) == expected and len(expected.pairs) == 8


def test_the_summary_reports_that_only_the_first_rows_were_compared(monkeypatch):
    split = rows(
        [record(str(number), " ".join(words(number))) for number in range(4)], val=[record("v", " ".join(words(3)))]
    )
    assert "1 validation and 0 test rows" in str(near_copies(split)) and "first" not in str(near_copies(split))
    monkeypatch.setattr(module, "MAX_COMPARED", 3)
    copies = near_copies(split)
    assert not copies.pairs and "first 3 of 4 training rows" in str(copies)
