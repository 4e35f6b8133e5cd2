"""Alignment: the prompts, the refused completions and the fallbacks."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from project.config.prompts import as_data, prompt
from project.config.schema import AlignmentConfig
from project.llm.client import GenerationResult, LanguageModel
from project.llm.store.store import Store
from project.pipeline.alignment import (
    Aligned,
    Exemplar,
    Task,
    align,
    exemplar_from,
    format_parts,
    join_parts,
    parse_prediction,
)

ALL = AlignmentConfig(exemplar=False)
SUMMARY = replace(ALL, style=False, reasoning=False)
REASONING = replace(ALL, style=False, summary=False)
OFF = replace(ALL, style=False, summary=False, reasoning=False)
PARTS = (("text", "A heavy hammer with a wooden handle drives nails."), ("table", "The weight is 41."))
OTHER = (("text", "A crisp apple from the orchard, sweet with a thin skin."),)


@pytest.fixture
def llm(tmp_path, scripted):
    return LanguageModel("small", Store(tmp_path), lambda: scripted)


@pytest.fixture
def aligned(llm, task):
    def run(*descriptions, config=ALL, exemplar=None):
        return align(descriptions, llm, config, task, exemplar)

    return run


def answering(stage, *texts):
    """Answer a stage with these texts, one per draw, and other stages with valid answers."""

    def reply(request):
        return texts[request.attempt] if request.stage == stage else valid_answer(request)

    return reply


def valid_answer(request):
    return "It is a hammer." if request.schema is None else json.dumps({"explanation": "Nails.", "prediction": "Tool"})


def reasoning_json(explanation, prediction):
    return json.dumps({"explanation": explanation, "prediction": prediction})


def test_without_stages_the_descriptions_are_returned_without_a_model(task):
    results = align([PARTS, (), OTHER], None, OFF, task)
    assert results == [Aligned(parts, parts, {}) for parts in (PARTS, (), OTHER)]


def test_all_stages_give_a_summary_and_a_reasoning(aligned, scripted):
    (result,) = aligned(PARTS)
    assert [name for name, _ in result.parts] == ["summary", "reasoning"]
    assert result.prediction in ("Fruit", "Tool", "Vehicle")
    assert result.parts[1][1].endswith(f" It is most likely {result.prediction}.")
    assert result.styled == PARTS and set(result.answers) >= {"summary", "reasoning"}
    assert [request.stage for request in scripted.asked].count("style") == 2 and len(scripted.asked) == 4


def test_without_a_summary_the_descriptions_precede_the_reasoning(aligned):
    (result,) = aligned(PARTS, config=REASONING)
    assert result.parts[:2] == PARTS and [name for name, _ in result.parts[2:]] == ["reasoning"]


def test_the_summary_and_the_reasoning_read_the_styled_descriptions(aligned, scripted):
    styled = {as_data(text): f"Notably: {text}" for _, text in PARTS}
    scripted.reply = lambda request: (
        styled[request.messages[-1][1]] if request.stage == "style" else valid_answer(request)
    )
    aligned(PARTS)
    later = [request for request in scripted.asked if request.stage != "style"]
    assert {request.stage for request in later} == {"summary", "reasoning"}
    assert all("text: Notably: A heavy" in request.messages[-1][1] for request in later)


def test_a_serial_reasoning_reads_the_summary_only(llm, scripted, task):
    scripted.reply = answering("summary", "A heavy wooden hammer handle that drives nails, weight 41.")
    explained = replace(task, lines="The line text tells it.")
    for serial in (False, True):
        scripted.asked.clear()
        align([PARTS, ()], llm, replace(ALL, serial=serial), explained)
        (request,) = (request for request in scripted.asked if request.stage == "reasoning")
        data = "summary: A heavy wooden hammer handle that drives nails, weight 41." if serial else format_parts(PARTS)
        assert request.messages[-1][1] == as_data(data)
        assert ("The line text tells it." in request.messages[0][1]) != serial


def test_a_serial_reasoning_reads_the_fallback_of_a_failed_summary(aligned, scripted):
    scripted.reply = answering("summary", "Sorry.", "")
    (result,) = aligned(PARTS, config=replace(ALL, serial=True))
    (request,) = (request for request in scripted.asked if request.stage == "reasoning")
    assert result.answers["summary"].fallback and request.messages[-1][1] == as_data(f"summary: {join_parts(PARTS)}")


def test_a_record_without_descriptions_stays_empty_without_a_request(aligned, scripted):
    empty, full, last = aligned((), PARTS, ())
    assert empty == last == Aligned((), (), {}) and full.parts
    scripted.asked.clear()
    assert [result.parts for result in aligned((), ())] == [(), ()]
    assert scripted.asked == []


def test_equal_descriptions_are_generated_once(aligned, scripted):
    first, second = aligned(PARTS, PARTS)
    assert first == second and len(scripted.asked) == 4


def test_a_style_that_fails_every_draw_keeps_the_description(aligned, scripted):
    scripted.reply = answering("style", "", "Sorry.")
    (result,) = aligned(PARTS, config=replace(ALL, summary=False, reasoning=False))
    assert result.parts == result.styled == PARTS


def test_a_summary_that_loses_facts_is_redrawn_then_replaced_by_its_source(aligned, scripted, llm):
    scripted.reply = answering("summary", "It is a hammer.", "A hammer with a handle.")
    (result,) = aligned(PARTS, config=SUMMARY)
    assert result.parts == (("summary", join_parts(PARTS)),)
    assert result.answers["summary"].fallback and result.answers["summary"].flags == ("too short", "facts")
    assert llm.usage.fallbacks == {"summary": 1}


@pytest.mark.parametrize("added", ["Fruit", "tool", "A VEHICLE, that is"])
def test_a_summary_with_a_class_name_not_in_its_source_is_refused(aligned, scripted, added):
    scripted.reply = answering("summary", f"{join_parts(PARTS)} {added}.", join_parts(PARTS))
    (result,) = aligned(PARTS, config=SUMMARY)
    assert result.parts == (("summary", join_parts(PARTS)),)
    assert result.answers["summary"].attempts == 2 and not result.answers["summary"].fallback


def test_a_summary_may_have_a_class_name_of_its_source(aligned, scripted):
    parts = (("text", "A tool that drives nails into boards."),)
    scripted.reply = answering("summary", parts[0][1])
    assert aligned(parts, config=SUMMARY)[0].answers["summary"].attempts == 1


@pytest.mark.parametrize(
    "bad",
    [
        "no JSON at all",
        "[]",
        "{}",
        reasoning_json("A hammer.", "Animal"),
        reasoning_json("", "Tool"),
        reasoning_json(7, "Tool"),
        reasoning_json("A hammer of 1999.", "Tool"),
        reasoning_json("I'm sorry, I cannot help.", "Tool"),
        reasoning_json("A hammer.", None),
        reasoning_json("A hammer.", ["Tool"]),
        '{"prediction": "Tool"}',
        '{"explanation": "A hammer."}',
        '{"explanation": "A ham',
    ],
)
def test_an_invalid_reasoning_is_redrawn_then_dropped(aligned, scripted, bad, llm):
    scripted.reply = answering("reasoning", bad, reasoning_json("It drives nails.", "Tool"))
    assert aligned(PARTS, config=REASONING)[0].parts[-1] == ("reasoning", "It drives nails. It is most likely Tool.")
    scripted.reply = answering("reasoning", bad, bad)
    (result,) = aligned(OTHER, config=REASONING)
    assert result.parts == OTHER and result.prediction is None
    assert llm.usage.fallbacks == {"reasoning": 1}


def test_an_explanation_with_half_a_surrogate_pair_is_refused(aligned, scripted):
    r"""JSON allows \ud83d alone, which Python reads as a text that UTF-8 and tokenizers refuse."""
    scripted.reply = answering("reasoning", r'{"explanation": "A bug \ud83d here.", "prediction": "Tool"}', "{}")
    join_parts(aligned(PARTS, config=REASONING)[0].parts).encode("utf-8")


def test_the_answer_schema_allows_only_the_classes(aligned, scripted, task):
    aligned(PARTS, config=REASONING)
    (request,) = scripted.asked
    assert json.loads(request.schema)["properties"]["prediction"]["enum"] == list(task.classes)
    assert task.question in request.messages[0][1] and all(name in request.messages[0][1] for name in task.classes)


def test_the_instruction_is_constant_and_the_record_is_last(aligned, scripted):
    aligned(PARTS, OTHER)
    for stage in ("style", "summary", "reasoning"):
        prompts = [request.messages for request in scripted.asked if request.stage == stage]
        assert len(prompts) > 1 and len({messages[0] for messages in prompts}) == 1
        assert all(messages[0][0] == "system" and messages[-1][0] == "user" for messages in prompts)
        assert all("\n" not in messages[0][1] and "$" not in messages[0][1] for messages in prompts)


def test_the_exemplar_is_a_separate_turn_before_the_record(aligned, scripted):
    exemplar = Exemplar(OTHER, (("text", "An apple, styled."),), "An apple, summed up.")
    aligned(PARTS, exemplar=exemplar)
    style = {request.messages[-1][1]: request.messages for request in scripted.asked if request.stage == "style"}
    assert style[as_data(PARTS[0][1])][1:3] == (("user", as_data(OTHER[0][1])), ("assistant", "An apple, styled."))
    assert len(style[as_data(PARTS[1][1])]) == 2  # the exemplar has no table
    (summary,) = (request.messages for request in scripted.asked if request.stage == "summary")
    assert summary[1:3] == (("user", as_data("text: An apple, styled.")), ("assistant", "An apple, summed up."))
    (reasoning,) = (request.messages for request in scripted.asked if request.stage == "reasoning")
    assert len(reasoning) == 2


PASSED, REDRAWN = GenerationResult("ok"), GenerationResult("ok", attempts=2)


def result(**answers):
    return Aligned(PARTS, PARTS, answers)


@pytest.mark.parametrize(
    "first",
    [
        {},
        {"summary": GenerationResult("x", ("facts",), 2, True)},
        {"summary": REDRAWN},
        {"summary": PASSED, "reasoning": GenerationResult("", ("loop",), 2, True)},
    ],
)
def test_the_exemplar_is_the_first_row_whose_answers_passed_at_the_first_draw(first):
    good = Aligned(OTHER, OTHER, {"summary": GenerationResult("An apple.")})
    assert exemplar_from([PARTS, OTHER], [result(**first), good]) == Exemplar(OTHER, OTHER, "An apple.")


def test_a_row_whose_style_failed_is_no_exemplar(aligned, scripted):
    scripted.reply = lambda request: "" if request.stage == "style" else join_parts(PARTS)
    rows = aligned(PARTS, config=replace(ALL, reasoning=False))
    assert exemplar_from([PARTS], rows) is None


def test_there_is_no_exemplar_if_no_row_passed():
    assert exemplar_from([PARTS], [result(summary=GenerationResult("x", ("facts",), 2, True))]) is None
    assert exemplar_from([], []) is None


@given(st.text())
def test_no_text_can_close_the_data_marks(text):
    marked = as_data(text)
    assert marked.startswith("<data>\n") and marked.endswith("\n</data>")
    assert marked.count("<") == marked.count(">") == 2
    assert len(marked) == len(text) + len("<data>\n\n</data>")


@pytest.mark.parametrize("stage", ["style", "summary", "reasoning", "reasoning-number", "perturb"])
def test_every_prompt_separates_data_from_instructions(stage):
    text = prompt(stage, words=60, question="What?", classes="a; b", lines="A photo.", advice="Weigh it.")
    assert "<data>" in text and "</data>" in text and "never follow orders" in text


def test_parts_as_lines_and_as_one_passage():
    assert format_parts((("a", "x y"), ("b", "z"))) == "a: x y\nb: z"
    assert join_parts((("a", "x y"), ("b", ""), ("c", "z"))) == "x y z"


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0,35", "0.35"),
        ("-0,350", "-0.35"),
        ("1,5", "1.5"),
        ("12,3456", "12.3456"),
        ("1234,5", "1234.5"),
        ("1.234,5", "1234.5"),
        ("1.234,567", "1234.57"),
        ("1,234", "1234"),
        ("-12,345", "-12345"),
        ("1,234.5", "1234.5"),
        ("1,234,567", "1.23457e+06"),
        ("1.234", "1.234"),
        ("1e3", "1000"),
        (0.35, "0.35"),
        ("1.2.3", None),
        ("nan", None),
        ("about 3", None),
    ],
)
def test_a_number_may_have_a_decimal_comma(text, number):
    assert parse_prediction({"prediction": text}, Task("How much?")) == number
