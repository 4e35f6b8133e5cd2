"""Align descriptions: a language model writes a summary and a reasoning.

Style and summary are the two phases of the paper's modality summarization, reasoning is its reasoning augmentation
(arXiv 2408.09798). Both read the descriptions; with `serial`, the reasoning reads the summary. The downstream model
reads their concatenation.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..config.prompts import as_data, prompt
from ..config.schema import AlignmentConfig
from ..llm.client import GenerationResult, GenerationTask, LanguageModel, canonical, extract_json
from ..llm.protocol import Request
from ..llm.quality_gate import Gate

Parts = tuple[tuple[str, str], ...]
"""A text as (name, text) pairs in reading order: image, text, table before alignment; summary, reasoning after it."""

_DECIMAL_COMMA = re.compile(r"[+-]?(?![1-9]\d{0,2},\d{3}$)(\d+|\d{1,3}(\.\d{3})+),\d+")
"""A number with a decimal comma; the look-ahead excludes one group of thousands, such as 1,234."""


@dataclass(frozen=True)
class Task:
    """The prediction task as prompts describe it: the question, and the classes unless the target is a number.

    `lines` explains the lines of the descriptions, `advice` how to reason; both are sentences of the data config.
    """

    question: str
    classes: tuple[str, ...] = ()
    lines: str = ""
    advice: str = ""


@dataclass(frozen=True)
class Exemplar:
    """The one-shot example: the descriptions of a training row, their styled version and their summary."""

    described: Parts
    styled: Parts
    summary: str | None


@dataclass(frozen=True)
class Aligned:
    """The aligned text of one record. `answers` has the result of each stage, by name.

    `prediction` and `explanation` come from the reasoning; None without a valid one.
    """

    parts: Parts
    styled: Parts
    answers: dict[str, GenerationResult]
    prediction: str | None = None
    explanation: str | None = None


def format_parts(parts: Parts) -> str:
    """Return the parts as lines of a prompt, "name: text"."""
    return "\n".join(f"{name}: {text}" for name, text in parts)


def join_parts(parts: Parts) -> str:
    """Return the texts of the parts as one passage."""
    return " ".join(text for _, text in parts if text)


def align(
    descriptions: Sequence[Parts],
    llm: LanguageModel | None,
    config: AlignmentConfig,
    task: Task,
    exemplar: Exemplar | None = None,
) -> list[Aligned]:
    """Return the aligned text of each record; with all stages disabled, its descriptions.

    A record without descriptions stays empty, without a request.
    """
    if not (config.style or config.summary or config.reasoning):
        return [Aligned(parts, parts, {}) for parts in descriptions]
    styles = _style(descriptions, llm, config, task, exemplar) if config.style else [{} for _ in descriptions]
    styled = [
        tuple((name, style[f"style {name}"].text if style else text) for name, text in parts)
        for parts, style in zip(descriptions, styles, strict=True)
    ]
    described = [index for index, parts in enumerate(styled) if parts]
    summaries, reasonings = {}, {}
    if config.summary:
        tasks = [summary_task(styled[index], config, task, exemplar) for index in described]
        summaries = dict(zip(described, llm.ask(tasks, config.attempts), strict=True))
    if config.reasoning:
        inputs = [(("summary", summaries[index].text),) if config.serial else styled[index] for index in described]
        tasks = [reasoning_task(parts, config, task) for parts in inputs]
        reasonings = dict(zip(described, llm.ask(tasks, config.attempts), strict=True))
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
    explanation, prediction = _parse_reasoning(reasoning.text, task) if reasoning else (None, None)
    if prediction is not None:
        parts.append(("reasoning", f"{explanation} It is most likely {prediction}."))
    answers = style | {name: value for name, value in (("summary", summary), ("reasoning", reasoning)) if value}
    return Aligned(tuple(parts), styled, answers, prediction, explanation)


def _messages(instruction: str, example: tuple[str, str] | None, data: str) -> tuple[tuple[str, str], ...]:
    """Return instruction, example turns and record, in this order, so that requests share a constant prefix."""
    example_turns = (("user", as_data(example[0])), ("assistant", example[1])) if example else ()
    return (("system", instruction), *example_turns, ("user", as_data(data)))


def _style(
    descriptions: Sequence[Parts], llm: LanguageModel, config: AlignmentConfig, task: Task, exemplar: Exemplar | None
) -> list[dict[str, GenerationResult]]:
    """Return each description rewritten in a common style, by one request each; equal requests are generated once."""
    gate = Gate(shortest=0.4, longest=2.0, facts=config.min_fact_recall, classes=task.classes)
    tasks = []
    for parts in descriptions:
        for name, text in parts:
            original = exemplar and dict(exemplar.described).get(name)
            example = (original, dict(exemplar.styled)[name]) if original else None
            request = Request(
                "style",
                _messages(prompt("style", words=config.words), example, text),
                config.temperature,
                2 * config.words,
            )
            tasks.append(GenerationTask(request, lambda out, end, text=text: gate.flags(out, text, end), text))
    answers = iter(llm.ask(tasks, config.attempts))
    return [{f"style {name}": next(answers) for name, _ in parts} for parts in descriptions]


def summary_task(styled: Parts, config: AlignmentConfig, task: Task, exemplar: Exemplar | None) -> GenerationTask:
    """Return the request for a summary, with the descriptions as fallback."""
    gate = Gate(shortest=0.4, longest=1.5, facts=config.min_fact_recall, classes=task.classes)
    source = join_parts(styled)
    example = (format_parts(exemplar.styled), exemplar.summary) if exemplar and exemplar.summary else None
    request = Request(
        "summary",
        _messages(prompt("summary", words=config.words), example, format_parts(styled)),
        config.temperature,
        2 * config.words,
    )
    return GenerationTask(request, lambda out, end: gate.flags(out, source, end), source)


def reasoning_task(parts: Parts, config: AlignmentConfig, task: Task) -> GenerationTask:
    """Return the request for an explanation and a prediction, with an empty fallback.

    It has no example: small models copy the example's explanation, and the schema enforces the format.
    """
    gate = Gate(longest=3.0)
    source = join_parts(parts)
    schema = {
        "type": "object",
        "additionalProperties": False,
        "required": ["explanation", "prediction"],
        "properties": {"explanation": {"type": "string", "maxLength": 160}, "prediction": prediction_schema(task)},
    }

    def judge(out: str, end: str) -> tuple[str, ...]:
        explanation, prediction = _parse_reasoning(out, task)
        return ("not in the schema",) if prediction is None else gate.flags(explanation, source, end)

    lines = "" if config.serial else task.lines  # a summary has no such lines
    fields = {"question": task.question, "lines": lines, "advice": task.advice}
    instruction = (
        prompt("reasoning", classes="; ".join(task.classes), **fields)
        if task.classes
        else prompt("reasoning-number", **fields)
    )
    messages = _messages(instruction, None, format_parts(parts))
    request = Request("reasoning", messages, config.temperature, 120, schema=canonical(schema))
    return GenerationTask(request, judge, "")


def _parse_reasoning(text: str, task: Task) -> tuple[str, str] | tuple[None, None]:
    """Return explanation and prediction of a completion, or (None, None) if one is missing."""
    answer = extract_json(text) or {}
    explanation, prediction = answer.get("explanation"), parse_prediction(answer, task)
    is_valid = prediction is not None and isinstance(explanation, str)
    return (explanation.strip(), prediction) if is_valid else (None, None)


def parse_prediction(answer: dict, task: Task) -> str | None:
    """Return the predicted class or number of a parsed completion, or None if it has none.

    Classes match in any case; a number must be finite, and is formatted with six significant digits. Its comma is a
    decimal comma if it cannot separate thousands: 0,35 and 1.234,5, but not 1,234.
    """
    prediction = str(answer.get("prediction", "")).strip().casefold()
    if task.classes:
        return next((name for name in task.classes if name.casefold() == prediction), None)
    try:
        number = _parse_number(prediction)
    except ValueError:
        return None
    return f"{number:.6g}" if math.isfinite(number) else None


def _parse_number(text: str) -> float:
    """Return the number of a text. Raises ValueError if it is none."""
    if _DECIMAL_COMMA.fullmatch(text):
        return float(text.replace(".", "").replace(",", "."))
    return float(text.replace(",", ""))


def prediction_schema(task: Task) -> dict:
    """Return the JSON schema of the prediction."""
    return {"type": "string", "enum": list(task.classes)} if task.classes else {"type": "number"}


def exemplar_from(described: Sequence[Parts], aligned: Sequence[Aligned]) -> Exemplar | None:
    """Return the first training row whose answers all passed the checks at the first draw, or None."""
    for parts, result in zip(described, aligned, strict=True):
        answers = result.answers.values()
        if answers and not any(answer.attempts > 1 or answer.flags or answer.fallback for answer in answers):
            summary = result.answers.get("summary")
            return Exemplar(parts, result.styled, summary and summary.text)
    return None
