"""Text in, text out: what a language model is asked, what it returns, and the small protocol between."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Request:
    """One generation. Two requests with equal fields are one request, asked and paid for once.

    `messages` are pairs of role and content; `schema` is a JSON schema as canonical JSON, or None for free text;
    `round` and `attempt` tell apart draws of one prompt.
    """

    stage: str
    messages: tuple[tuple[str, str], ...]
    temperature: float
    max_tokens: int
    schema: str | None = None
    round: int = 0
    attempt: int = 0

    def key(self, model: str) -> str:
        """The content address of this generation by that model: sha256 over canonical JSON, in hex."""
        content = {
            "model": model, "messages": self.messages, "temperature": self.temperature, "max_tokens": self.max_tokens,
            "schema": self.schema, "round": self.round, "attempt": self.attempt,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=True).encode()).hexdigest()


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
