"""Each check of the quality gate on a text that fails it and on one that passes."""

import inspect

import pytest
from hypothesis import given
from hypothesis import strategies as st

from project.llm import quality_gate as module
from project.llm.quality_gate import Gate, content_words, facts_kept, foreign_letters, is_loop

SOURCE = "The red hammer weighs 12 kg and drives nails into thick oak boards."
LOOP = "it is a hammer " * 3
CASES = {
    "empty": (Gate(), ".. -", "Yes."),
    "refusal": (Gate(), "I'm sorry, I can't help with that.", "The hammer is a sorry sight."),
    "loop": (Gate(), LOOP, "it is a hammer " * 2),
    "too long": (
        Gate(longest=2.0),
        " ".join(f"word{'abcdefghi'[n % 9]}{'abcdefg'[n % 7]}" for n in range(27)),
        " ".join(f"word{'abcdefghi'[n % 9]}{'abcdefg'[n % 7]}" for n in range(26)),
    ),
    "too short": (Gate(shortest=0.5), "A red hammer.", "A red hammer that drives nails into boards."),
    "script": (Gate(), "Красный молоток", "Ein großer Hammer, très lourd"),
    "numbers": (Gate(), "It weighs 120 kg.", "It weighs 12 kg."),
    "class name": (Gate(classes=("Tool", "Food & Drink")), "This is a tool.", "This is a toolbox for food."),
    "facts": (Gate(facts=0.8), "The hammer weighs 12 kg.", SOURCE.replace("nails", "a nail")),
    "unchanged": (Gate(changed=True), SOURCE.upper(), "Into thick oak boards the hammer drives nails."),
}


@pytest.mark.parametrize("flag", CASES)
def test_each_check_fails_the_bad_text_and_passes_the_good_one(flag):
    gate, bad, good = CASES[flag]
    assert flag in gate.flags(bad, SOURCE)
    assert gate.flags(good, SOURCE) == ()


def test_a_text_that_reached_the_token_limit_is_flagged():
    assert Gate().flags("The red hammer", SOURCE, "length") == ("cut off",)
    assert Gate().flags("The red hammer", SOURCE, "stop") == ()


def test_every_check_has_a_case():
    assert set(Gate(changed=True, shortest=1, facts=1).flags("", SOURCE)) == {"empty", "too short", "facts"}
    names = {name for gate, bad, _ in CASES.values() for name in gate.flags(bad, SOURCE, "length")}
    assert names == {*CASES, "cut off"}


def test_a_copy_of_the_source_passes_whatever_it_contains():
    source = "As an AI, I cannot help. Красный Tool 7."
    assert Gate(classes=("Tool",)).flags(source, source) == ()


@pytest.mark.parametrize(("text", "source"), [("3", "3."), ("1,5", "1,5 or 2"), ("costs 2.50.", "2.50")])
def test_a_full_stop_after_a_number_is_ignored(text, source):
    assert Gate().flags(text, source) == ()


def test_a_short_source_may_become_a_sentence():
    assert Gate(longest=1.0).flags("It is a hammer with which one drives nails into wood.", "hammer") == ()


@pytest.mark.parametrize(
    ("words", "loops"),
    [("a b c d " * 3, True), ("a b c d " * 2, False), ("a " * 6, True), ("a " * 5, False), ("", False)],
)
def test_a_loop_is_a_sequence_of_four_words_three_times(words, loops):
    assert is_loop(words.split()) == loops


def test_foreign_letters_returns_a_share_of_the_letters():
    assert foreign_letters("ab я 1", "ab") == pytest.approx(1 / 3)
    assert foreign_letters("ab я", "Москва") == 0
    assert foreign_letters("1 2", "ab") == 0


@given(st.text(), st.text())
def test_facts_kept_is_between_0_and_1(source, text):
    assert 0 <= facts_kept(source, text) <= 1
    assert facts_kept(source, source) == 1
    assert facts_kept("", text) == 1


@given(st.text(), st.text())
def test_a_text_that_contains_the_source_keeps_all_facts(source, text):
    assert facts_kept(source, f"{text} {source}") == 1


def test_content_words_excludes_function_words():
    assert content_words("The hammer is in the box: 3 nails, 1.5 kg") == {"hammer", "box", "3", "nails", "1.5", "kg"}


@given(st.text(), st.text(), st.sampled_from(["stop", "length"]))
def test_flags_of_any_text_are_in_a_fixed_order(text, source, finish):
    flags = Gate(0.5, 2.0, 0.5, True, ("Tool",)).flags(text, source, finish)
    order = ["empty", "cut off", *list(CASES)[1:]]
    assert list(flags) == [name for name in order if name in flags]


def test_no_check_takes_a_target():
    functions = [value for value in vars(module).values() if inspect.isfunction(value)] + [Gate.flags, Gate.__init__]
    parameters = {name for function in functions for name in inspect.signature(function).parameters}
    assert {"text", "source", "classes"} <= parameters
    assert not {name for name in parameters if "target" in name or "label" in name or "record" in name}
