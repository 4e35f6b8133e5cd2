"""Text and images in, text out: what a language model is asked, what it returns, and the small protocol between."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

IMAGE = "<image>"
"""Stands in what the user says where an image is shown; data have no angle brackets there, so they cannot forge it."""


@dataclass(frozen=True)
class Request:
    """One generation. Two requests with equal fields are one request, asked and paid for once.

    `messages` are pairs of role and content; `schema` is a JSON schema as canonical JSON, or None for free text;
    `round` and `attempt` tell apart draws of one prompt. `images` are the digests of what is shown, in the order of the
    IMAGE marks in the messages; `pixels` are the images themselves, uint8 RGB of shape (height, width, 3), which travel
    beside them to the engine.
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
        """All that the completion depends on besides the model, as a store keeps it; images where there are any."""
        shown = {"images": self.images} if self.images else {}
        return {
            "messages": self.messages,
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "schema": self.schema,
            "round": self.round,
            "attempt": self.attempt,
            **shown,
        }

    def key(self, model: str) -> str:
        """The content address of this generation by that model: sha256 over canonical JSON, in hex."""
        content = json.dumps({"model": model, **self.settings}, sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def pieces(self) -> list[tuple[str, list[str | np.ndarray]]]:
        """Role and content of each message; what the user says is split at its IMAGE marks, with the images there.

        Raises ValueError where there are not as many images as marks.
        """
        if not self.images:
            return [(role, [content]) for role, content in self.messages]
        marks = sum(content.count(IMAGE) for role, content in self.messages if role == "user")
        if not marks == len(self.images) == len(self.pixels):
            raise ValueError(
                f"stage {self.stage}: {marks} marks, {len(self.images)} digests and {len(self.pixels)} images"
            )
        left, told = iter(self.pixels), []
        for role, content in self.messages:
            first, *rest = content.split(IMAGE) if role == "user" else [content]
            pieces = [first, *(piece for text in rest for piece in (next(left), text.lstrip("\n")))]
            told.append((role, [piece for piece in pieces if not isinstance(piece, str) or piece]))
        return told


@dataclass(frozen=True)
class Completion:
    """What the model returned. `finish` is "stop", or "length" where the token limit cut the text off.

    `seconds` is the request's share of the engine's time: where several are answered side by side, it is divided among
    them, so that the seconds of all requests add up to what the user waited.
    """

    text: str
    finish: str
    prompt_tokens: int
    completion_tokens: int
    seconds: float


class Engine(Protocol):
    """A language model. Engines are made when the first text is missing from the store, not before."""

    def generate(self, requests: Sequence[Request], seeds: Sequence[int]) -> Iterator[tuple[int, Completion]]:
        """Yield (index, completion) in any order, each as soon as it is there, so that nothing paid for is lost."""
