"""What became of a text, word by word."""

from hypothesis import given
from hypothesis import strategies as st

from project.report.text_diff import changes

TEXTS = st.lists(st.sampled_from("a b c <b> red".split()), max_size=8).map(" ".join)


def test_by_hand():
    assert changes("a red thing", "a blue thing") == [
        ("kept", "a"), ("gone", "red"), ("new", "blue"), ("kept", "thing")]
    assert changes("", "new words") == [("new", "new words")]
    assert changes("", "") == []


@given(TEXTS, TEXTS)
def test_both_texts_can_be_read_from_it(before, after):
    found = changes(before, after)
    assert " ".join(words for kind, words in found if kind != "new") == before
    assert " ".join(words for kind, words in found if kind != "gone") == after
