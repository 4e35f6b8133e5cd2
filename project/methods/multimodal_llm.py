"""Answers of a multimodal language model from the (corrupted) image, text and table.

With shots, training rows with their labels precede the question as earlier turns. Labels of validation and test rows
are never in a prompt.
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
from ..pipeline.alignment import Task, parse_prediction, prediction_schema
from ..pipeline.corrupt import corrupt
from ..pipeline.describe import describe
from ..pipeline.pipeline import EMPTY_TEXT, Pipeline
from ..training.fit_info import FitInfo
from .base import Prediction, Predictor
from .llm_zero_shot import prediction_of, validation_info

_MAX_TOKENS = 60
"""Tokens of the longest answer: one class or number in JSON."""
_BATCH_SIZE = 256
"""Records of one call to the language model; their images are held in memory."""


@dataclass(frozen=True)
class PromptRecord:
    """The user turn of a record: its content with IMAGE marks, the images of these marks, and their digests."""

    content: str
    images: tuple[np.ndarray, ...]
    digests: tuple[str, ...]


def fit(config: Config, folder: Path, pipeline: Pipeline, rows: Rows, logger, callbacks=()) -> FitInfo:
    """Score the validation rows; there is nothing to train or save."""
    return validation_info(load(config, folder, pipeline, rows), rows, config)


def load(config: Config, folder: Path, pipeline: Pipeline, rows: Rows) -> Predictor:
    """Return the predictor, which needs no run folder."""
    examples: list[tuple[PromptRecord, str]] | None = None

    def predict(records: Sequence[Record], condition: Condition) -> Prediction:
        nonlocal examples
        if examples is None:
            shots = few_shot_rows(rows.train, config.model.shots, rows.target)
            examples = [
                (prompt_record, json.dumps({"prediction": record.target}, ensure_ascii=False))
                for record, prompt_record in zip(shots, prompt_records(shots, pipeline), strict=True)
            ]
        predictions = []
        for start in range(0, len(records), _BATCH_SIZE):
            batch = [corrupt(record, condition, rows.train) for record in records[start : start + _BATCH_SIZE]]
            tasks = [generation_task(item, examples, pipeline.task) for item in prompt_records(batch, pipeline)]
            results = pipeline.llm.ask(tasks, config.model.attempts)
            predictions += [parse_prediction(extract_json(result.text) or {}, pipeline.task) for result in results]
        return prediction_of(predictions, rows.target)

    return predict


def few_shot_rows(train: Sequence[Record], count: int, target: Target) -> list[Record]:
    """Return `count` training rows as examples, balanced over the classes; for numbers, evenly spaced quantiles.

    The draw depends on the record ids alone, so it is the same for every seed.
    """
    if not count:
        return []
    shuffled = sorted(train, key=lambda record: seeded("shots", record.id).random())
    if target.kind == "number":
        ranked = sorted(shuffled, key=lambda record: record.target)
        ranks = dict.fromkeys(round((shot + 0.5) * len(ranked) / count - 0.5) for shot in range(count))
        example_ids = {ranked[rank].id for rank in ranks}
        return [record for record in shuffled if record.id in example_ids]
    by_class = defaultdict(list)
    for record in shuffled:
        by_class[record.target].append(record)
    turns = [(turn, record) for rows in by_class.values() for turn, record in enumerate(rows)]
    return [record for _, record in sorted(turns, key=lambda pair: pair[0])][:count]


def prompt_records(records: Sequence[Record], pipeline: Pipeline) -> list[PromptRecord]:
    """Return the user turn of each record in reading order: notes as data, and one IMAGE mark per picture."""
    images_of = [
        [pixels(picture) for picture in pictures(record.image) if not isinstance(picture, str)]
        if record.image is not None
        else []
        for record in records
    ]
    # Experts describe text and table only, but pass on a ready description of an image without pixels.
    without_pixels = [
        replace(record, image=None) if images else record for record, images in zip(records, images_of, strict=True)
    ]
    descriptions = map(dict, describe(without_pixels, pipeline.config.experts, pipeline.store))
    return [
        _prompt_record(record, tuple(images), notes)
        for record, images, notes in zip(records, images_of, descriptions, strict=True)
    ]


def _prompt_record(record: Record, images: tuple[np.ndarray, ...], notes: dict[str, str]) -> PromptRecord:
    lines = []
    for name in record.present:
        lines += [IMAGE] * len(images) if name == "image" and images else [as_data(f"{name}: {notes[name]}")]
    return PromptRecord("\n".join(lines) or as_data(EMPTY_TEXT), images, tuple(map(digest, images)))


def generation_task(record: PromptRecord, examples: Sequence[tuple[PromptRecord, str]], task: Task) -> GenerationTask:
    """Return the request for a record: instruction, then the examples as earlier turns, then the record."""
    fields = {"question": task.question, "lines": task.lines, "advice": task.advice}
    instruction = (
        prompt("multimodal", classes="; ".join(task.classes), **fields)
        if task.classes
        else prompt("multimodal-number", **fields)
    )
    turns = [turn for example, answer in examples for turn in (("user", example.content), ("assistant", answer))]
    records = [*(example for example, _ in examples), record]
    schema = {
        "type": "object",
        "additionalProperties": False,
        "required": ["prediction"],
        "properties": {"prediction": prediction_schema(task)},
    }
    request = Request(
        "multimodal",
        (("system", instruction), *turns, ("user", record.content)),
        0.0,
        _MAX_TOKENS,
        schema=canonical(schema),
        images=tuple(name for item in records for name in item.digests),
        pixels=tuple(image for item in records for image in item.images),
    )
    return GenerationTask(request, lambda completion, end: _problems(completion, task), "")


def _problems(completion: str, task: Task) -> tuple[str, ...]:
    return () if parse_prediction(extract_json(completion) or {}, task) is not None else ("not in the schema",)
