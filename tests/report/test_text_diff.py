"""What became of a text, word by word."""

from hypothesis import given
from hypothesis import strategies as st

from project.report.text_diff import word_diff

TEXTS = st.lists(st.sampled_from("a b c <b> red".split()), max_size=8).map(" ".join)


def test_by_hand():
    assert word_diff("a red thing", "a blue thing") == [
        ("kept", "a"),
        ("gone", "red"),
        ("new", "blue"),
        ("kept", "thing"),
    ]
    assert word_diff("", "new words") == [("new", "new words")]
    assert word_diff("", "") == []


@given(TEXTS, TEXTS)
def test_both_texts_can_be_read_from_it(before, after):
    found = word_diff(before, after)
    assert " ".join(words for kind, words in found if kind != "new") == before
    assert " ".join(words for kind, words in found if kind != "gone") == after
