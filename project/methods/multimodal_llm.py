"""A multimodal language model asked for the answer, from the image, the text and the table as they are seen.

With shots, training rows stand before the question as earlier turns, with their labels: a few-shot rival sees labels of
training rows, and never that of a validation or test row.
"""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..config.prompts import as_data, prompt
from ..config.schema import Config
from ..corruption.conditions import Condition
from ..data.images import digest, pictures, pixels
from ..data.record import Record, seeded
from ..data.rows import Rows
from ..data.target import Target
from ..llm.client import GenerationTask, canonical, extract_json
from ..llm.protocol import IMAGE, Request
from ..pipeline.alignment import Task, predicted, prediction_schema
from ..pipeline.corrupt import corrupt
from ..pipeline.describe import describe
from ..pipeline.pipeline import NOTHING, Pipeline
from ..training.fit_info import FitInfo
from .base import Prediction, Predictor
from .llm_zero_shot import prediction_of, validation_info

TOKENS = 60
"""Longest answer: one class or number in JSON."""
BATCH = 256
"""Records that are asked about at once: their images are in memory."""


@dataclass(frozen=True)
class PromptRecord:
    """What a user's turn shows of a record: its content, the images of its IMAGE marks, and their digests."""

    content: str
    images: tuple[np.ndarray, ...]
    digests: tuple[str, ...]


def fit(config: Config, folder: Path, pipeline: Pipeline, rows: Rows, logger) -> FitInfo:
    """Nothing is learned and nothing kept; the validation rows are scored, as every method's are."""
    return validation_info(load(config, folder, pipeline, rows), rows, config)


def load(config: Config, folder: Path, pipeline: Pipeline, rows: Rows) -> Predictor:
    """The predictor, which needs no run folder."""
    examples: list[tuple[PromptRecord, str]] | None = None

    def predict(records: Sequence[Record], condition: Condition) -> Prediction:
        nonlocal examples
        if examples is None:
            chosen = few_shot_rows(rows.train, config.model.shots, rows.target)
            examples = [
                (seen, json.dumps({"prediction": record.target}, ensure_ascii=False))
                for record, seen in zip(chosen, prompt_records(chosen, pipeline), strict=True)
            ]
        said = []
        for start in range(0, len(records), BATCH):
            batch = [corrupt(record, condition, rows.train) for record in records[start : start + BATCH]]
            questions = [question(seen, examples, pipeline.task) for seen in prompt_records(batch, pipeline)]
            answers = pipeline.llm.ask(questions, config.model.attempts)
            said += [predicted(extract_json(answer.text) or {}, pipeline.task) for answer in answers]
        return prediction_of(said, rows.target)

    return predict


def few_shot_rows(train: Sequence[Record], count: int, target: Target) -> list[Record]:
    """The training rows that are shown as examples, the same for every seed: drawn by their ids, class by class.

    Of numbers, evenly spaced quantiles of the training targets are taken.
    """
    if not count:
        return []
    drawn = sorted(train, key=lambda record: seeded("shots", record.id).random())
    if target.kind == "number":
        ranked = sorted(drawn, key=lambda record: record.target)
        places = dict.fromkeys(round((shot + 0.5) * len(ranked) / count - 0.5) for shot in range(count))
        chosen = {ranked[place].id for place in places}
        return [record for record in drawn if record.id in chosen]
    by_class = defaultdict(list)
    for record in drawn:
        by_class[record.target].append(record)
    turns = [(turn, record) for rows in by_class.values() for turn, record in enumerate(rows)]
    return [record for _, record in sorted(turns, key=lambda pair: pair[0])][:count]


def prompt_records(records: Sequence[Record], pipeline: Pipeline) -> list[PromptRecord]:
    """What is shown of each record, in its reading order: notes as data, and a mark in the place of each picture."""
    looked = [
        [pixels(picture) for picture in pictures(record.image) if not isinstance(picture, str)]
        if record.image is not None
        else []
        for record in records
    ]
    # Experts tell text and table, and pass on a ready description of an image that is not there.
    blind = [replace(record, image=None) if images else record for record, images in zip(records, looked, strict=True)]
    notes = map(dict, describe(blind, pipeline.config.experts, pipeline.store))
    return [_shown(record, tuple(images), note) for record, images, note in zip(records, looked, notes, strict=True)]


def _shown(record: Record, images: tuple[np.ndarray, ...], notes: dict[str, str]) -> PromptRecord:
    lines = []
    for name in record.present:
        lines += [IMAGE] * len(images) if name == "image" and images else [as_data(f"{name}: {notes[name]}")]
    return PromptRecord("\n".join(lines) or as_data(NOTHING), images, tuple(map(digest, images)))


def question(seen: PromptRecord, examples: Sequence[tuple[PromptRecord, str]], task: Task) -> GenerationTask:
    """What is asked about a record: constant first, then the examples as earlier turns, then the record."""
    told = {"question": task.question, "lines": task.lines, "advice": task.advice}
    instruction = (
        prompt("multimodal", classes="; ".join(task.classes), **told)
        if task.classes
        else prompt("multimodal-number", **told)
    )
    turns = [turn for example, answer in examples for turn in (("user", example.content), ("assistant", answer))]
    all_shown = [*(example for example, _ in examples), seen]
    schema = {
        "type": "object",
        "additionalProperties": False,
        "required": ["prediction"],
        "properties": {"prediction": prediction_schema(task)},
    }
    request = Request(
        "multimodal",
        (("system", instruction), *turns, ("user", seen.content)),
        0.0,
        TOKENS,
        schema=canonical(schema),
        images=tuple(name for each in all_shown for name in each.digests),
        pixels=tuple(image for each in all_shown for image in each.images),
    )
    return GenerationTask(request, lambda out, end: _judged(out, task), "")


def _judged(out: str, task: Task) -> tuple[str, ...]:
    return () if predicted(extract_json(out) or {}, task) is not None else ("not in the schema",)
