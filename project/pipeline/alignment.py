"""Descriptions -> summary and reasoning, by a language model.

Style and summary are the two phases of the paper's modality summarization, reasoning is its reasoning augmentation;
both read the descriptions, or the reasoning reads the summary where it is serial, and their outputs are read side by
side by the downstream model.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..config.prompts import as_data, prompt
from ..config.schema import AlignmentConfig
from ..llm.client import GenerationResult, GenerationTask, LanguageModel, canonical, extract_json
from ..llm.protocol import Request
from ..llm.quality_gate import Gate

Parts = tuple[tuple[str, str], ...]
"""A text in named pieces, in reading order: (image, ...), (text, ...) before alignment, (summary, ...) after."""


@dataclass(frozen=True)
class Task:
    """What is predicted, as every prompt may know it: the question, and the possible answers unless it is a number.

    `lines` says what the descriptions tell, `advice` how to reason; both are sentences of the data's configuration.
    """

    question: str
    classes: tuple[str, ...] = ()
    lines: str = ""
    advice: str = ""


@dataclass(frozen=True)
class Exemplar:
    """A training row's descriptions and what the model made of them: the one-shot example of inference."""

    described: Parts
    styled: Parts
    summary: str | None


@dataclass(frozen=True)
class Aligned:
    """One record's aligned text. `answers` are the stages' answers.

    `prediction` and `explanation` are what the model itself said, or None.
    """

    parts: Parts
    styled: Parts
    answers: dict[str, GenerationResult]
    prediction: str | None = None
    explanation: str | None = None


def labelled(parts: Parts) -> str:
    """The pieces as the prompts show them, a line each."""
    return "\n".join(f"{name}: {text}" for name, text in parts)


def join_parts(parts: Parts) -> str:
    """The pieces as one passage."""
    return " ".join(text for _, text in parts if text)


def align(
    descriptions: Sequence[Parts],
    llm: LanguageModel | None,
    config: AlignmentConfig,
    task: Task,
    exemplar: Exemplar | None = None,
) -> list[Aligned]:
    """The aligned text of each record; with every stage switched off, the descriptions themselves.

    A record without any description stays empty, and nothing is asked about it.
    """
    if not (config.style or config.summary or config.reasoning):
        return [Aligned(parts, parts, {}) for parts in descriptions]
    styles = _style(descriptions, llm, config, task, exemplar) if config.style else [{} for _ in descriptions]
    styled = [
        tuple((name, style[f"style {name}"].text if style else text) for name, text in parts)
        for parts, style in zip(descriptions, styles, strict=True)
    ]
    asked = [index for index, parts in enumerate(styled) if parts]
    summaries, reasonings = {}, {}
    if config.summary:
        questions = [summary_question(styled[index], config, task, exemplar) for index in asked]
        summaries = dict(zip(asked, llm.ask(questions, config.attempts), strict=True))
    if config.reasoning:
        told = [(("summary", summaries[index].text),) if config.serial else styled[index] for index in asked]
        questions = [reasoning_question(parts, config, task) for parts in told]
        reasonings = dict(zip(asked, llm.ask(questions, config.attempts), strict=True))
    return [
        _merge(parts, styles[index], summaries.get(index), reasonings.get(index), task)
        for index, parts in enumerate(styled)
    ]


def _merge(
    styled: Parts,
    style: dict[str, GenerationResult],
    summary: GenerationResult | None,
    reasoning: GenerationResult | None,
    task: Task,
) -> Aligned:
    parts = [("summary", summary.text)] if summary else list(styled)
    explanation, prediction = _reasoned(reasoning.text, task) if reasoning else (None, None)
    if prediction is not None:
        parts.append(("reasoning", f"{explanation} It is most likely {prediction}."))
    answers = style | {name: value for name, value in (("summary", summary), ("reasoning", reasoning)) if value}
    return Aligned(tuple(parts), styled, answers, prediction, explanation)


def _messages(instruction: str, example: tuple[str, str] | None, data: str) -> tuple[tuple[str, str], ...]:
    """Constant first: instruction, then the example as a turn of its own, then the record."""
    shown = (("user", as_data(example[0])), ("assistant", example[1])) if example else ()
    return (("system", instruction), *shown, ("user", as_data(data)))


def _style(
    descriptions: Sequence[Parts], llm: LanguageModel, config: AlignmentConfig, task: Task, exemplar: Exemplar | None
) -> list[dict[str, GenerationResult]]:
    """Every description in the common style, one request each; equal descriptions are asked once."""
    gate = Gate(shortest=0.4, longest=2.0, facts=config.min_fact_recall, classes=task.classes)
    questions = []
    for parts in descriptions:
        for name, text in parts:
            before = exemplar and dict(exemplar.described).get(name)
            example = (before, dict(exemplar.styled)[name]) if before else None
            request = Request(
                "style",
                _messages(prompt("style", words=config.words), example, text),
                config.temperature,
                2 * config.words,
            )
            questions.append(GenerationTask(request, lambda out, end, text=text: gate.flags(out, text, end), text))
    answers = iter(llm.ask(questions, config.attempts))
    return [{f"style {name}": next(answers) for name, _ in parts} for parts in descriptions]


def summary_question(styled: Parts, config: AlignmentConfig, task: Task, exemplar: Exemplar | None) -> GenerationTask:
    """What is asked for a summary; where every draw fails, the descriptions stand in for it."""
    gate = Gate(shortest=0.4, longest=1.5, facts=config.min_fact_recall, classes=task.classes)
    source = join_parts(styled)
    example = (labelled(exemplar.styled), exemplar.summary) if exemplar and exemplar.summary else None
    request = Request(
        "summary",
        _messages(prompt("summary", words=config.words), example, labelled(styled)),
        config.temperature,
        2 * config.words,
    )
    return GenerationTask(request, lambda out, end: gate.flags(out, source, end), source)


def reasoning_question(told: Parts, config: AlignmentConfig, task: Task) -> GenerationTask:
    """What is asked for a prediction and its explanation; where every draw fails, nothing is said.

    It has no example: a small model copies the example's explanation, and the schema keeps the form anyway.
    """
    gate = Gate(longest=3.0)
    source = join_parts(told)
    schema = {
        "type": "object",
        "additionalProperties": False,
        "required": ["explanation", "prediction"],
        "properties": {"explanation": {"type": "string", "maxLength": 160}, "prediction": prediction_schema(task)},
    }

    def judge(out: str, end: str) -> tuple[str, ...]:
        explanation, prediction = _reasoned(out, task)
        return ("not in the schema",) if prediction is None else gate.flags(explanation, source, end)

    lines = "" if config.serial else task.lines  # a summary has none of the lines that are explained
    fields = {"question": task.question, "lines": lines, "advice": task.advice}
    instruction = (
        prompt("reasoning", classes="; ".join(task.classes), **fields)
        if task.classes
        else prompt("reasoning-number", **fields)
    )
    request = Request(
        "reasoning", _messages(instruction, None, labelled(told)), config.temperature, 120, schema=canonical(schema)
    )
    return GenerationTask(request, judge, "")


def _reasoned(text: str, task: Task) -> tuple[str, str] | tuple[None, None]:
    """Explanation and prediction of a completion, or two times None."""
    answer = extract_json(text) or {}
    explanation, prediction = answer.get("explanation"), predicted(answer, task)
    told = prediction is not None and isinstance(explanation, str)
    return (explanation.strip(), prediction) if told else (None, None)


def predicted(answer: dict, task: Task) -> str | None:
    """The class or number that a parsed completion predicts, or None where it names none.

    A class counts in whatever case it is written; a number must be finite, and is told in six digits.
    """
    prediction = str(answer.get("prediction", "")).strip().casefold()
    if task.classes:
        return next((name for name in task.classes if name.casefold() == prediction), None)
    try:
        number = float(prediction.replace(",", ""))
    except ValueError:
        return None
    return f"{number:.6g}" if math.isfinite(number) else None


def prediction_schema(task: Task) -> dict:
    """The JSON schema of what is predicted."""
    return {"type": "string", "enum": list(task.classes)} if task.classes else {"type": "number"}


def exemplar_from(described: Sequence[Parts], aligned: Sequence[Aligned]) -> Exemplar | None:
    """The first training row whose every answer passed all checks at the first draw; None where there is none."""
    for parts, result in zip(described, aligned, strict=True):
        answers = result.answers.values()
        if answers and not any(answer.attempts > 1 or answer.flags or answer.fallback for answer in answers):
            summary = result.answers.get("summary")
            return Exemplar(parts, result.styled, summary and summary.text)
    return None
