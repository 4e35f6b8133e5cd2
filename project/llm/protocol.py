"""The request to a language model, its completion, and the protocol of engines."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

IMAGE = "<image>"
"""Placeholder of an image in a user message. `as_data` replaces angle brackets, so that data cannot contain it."""


@dataclass(frozen=True)
class Request:
    """One generation. Requests with equal keys are generated once.

    `messages` are pairs of role and content; `schema` is a JSON schema as canonical JSON, or None for free text;
    `round` and `attempt` distinguish draws of one prompt. `images` are the digests of the images, in the order of the
    IMAGE marks in the messages; `pixels` are the images, uint8 RGB of shape (height, width, 3), for the engine only.
    """

    stage: str
    messages: tuple[tuple[str, str], ...]
    temperature: float
    max_tokens: int
    schema: str | None = None
    round: int = 0
    attempt: int = 0
    images: tuple[str, ...] = ()
    pixels: tuple[np.ndarray, ...] = field(default=(), compare=False, repr=False)

    @property
    def settings(self) -> dict:
        """The fields that determine the completion, as stored and hashed; `images` only if there are any."""
        images = {"images": self.images} if self.images else {}
        return {
            "messages": self.messages,
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "schema": self.schema,
            "round": self.round,
            "attempt": self.attempt,
            **images,
        }

    def key(self, model: str) -> str:
        """Return the store key of this generation by that model: sha256 over canonical JSON, in hex."""
        content = json.dumps({"model": model, **self.settings}, sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def pieces(self) -> list[tuple[str, list[str | np.ndarray]]]:
        """Return role and content of each message, with user messages split at IMAGE marks and images inserted.

        Raises ValueError if the numbers of marks, digests and images differ.
        """
        if not self.images:
            return [(role, [content]) for role, content in self.messages]
        marks = sum(content.count(IMAGE) for role, content in self.messages if role == "user")
        if not marks == len(self.images) == len(self.pixels):
            raise ValueError(
                f"stage {self.stage}: {marks} marks, {len(self.images)} digests and {len(self.pixels)} images"
            )
        images, messages = iter(self.pixels), []
        for role, content in self.messages:
            first, *rest = content.split(IMAGE) if role == "user" else [content]
            pieces = [first, *(piece for text in rest for piece in (next(images), text.lstrip("\n")))]
            messages.append((role, [piece for piece in pieces if not isinstance(piece, str) or piece]))
        return messages


@dataclass(frozen=True)
class Completion:
    """The output of a model. `finish` is "stop", or "length" if the token limit cut the text off.

    `seconds` is the request's share of the engine's time: concurrent requests divide it, so that the seconds of all
    requests add up to the elapsed time.
    """

    text: str
    finish: str
    prompt_tokens: int
    completion_tokens: int
    seconds: float


class Engine(Protocol):
    """A language model. An engine is created when the first text is missing from the store."""

    def generate(self, requests: Sequence[Request], seeds: Sequence[int]) -> Iterator[tuple[int, Completion]]:
        """Yield (index, completion) in any order, each as soon as it is complete, so that a failure loses none."""
