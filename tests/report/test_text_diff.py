"""Word-level differences of texts."""

from hypothesis import given
from hypothesis import strategies as st

from project.report.text_diff import word_diff

TEXTS = st.lists(st.sampled_from("a b c <b> red".split()), max_size=8).map(" ".join)


def test_by_hand():
    assert word_diff("a red thing", "a blue thing") == [
        ("equal", "a"),
        ("delete", "red"),
        ("insert", "blue"),
        ("equal", "thing"),
    ]
    assert word_diff("", "new words") == [("insert", "new words")]
    assert word_diff("", "") == []


@given(TEXTS, TEXTS)
def test_the_difference_contains_both_texts(before, after):
    runs = word_diff(before, after)
    assert " ".join(words for kind, words in runs if kind != "insert") == before
    assert " ".join(words for kind, words in runs if kind != "delete") == after
