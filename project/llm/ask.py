"""Asking a language model through the store: each distinct request once, judged, drawn again, or replaced."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from ..errors import UserError
from ..progress import progress
from .engine import Engine, Request
from .store import Store

REDRAW_TEMPERATURE = 0.7
"""Least temperature of a second draw: at 0 it would return the first again."""


@dataclass(frozen=True)
class Question:
    """A request, how its completion is judged, and the text that stands in where every draw fails.

    `judge` takes the completion and its finish reason and returns the names of the failed checks.
    """

    request: Request
    judge: Callable[[str, str], tuple[str, ...]]
    fallback: str


@dataclass(frozen=True)
class Answer:
    """The text to use. `flags` are what the last draw failed by; with `fallback` the text is not the model's."""

    text: str
    flags: tuple[str, ...] = ()
    attempts: int = 1
    fallback: bool = False


@dataclass
class Usage:
    """What a run asked of its language model. Tokens and seconds are of all generations used, stored ones included."""

    texts: Counter = field(default_factory=Counter)
    calls: Counter = field(default_factory=Counter)
    hits: Counter = field(default_factory=Counter)
    fallbacks: Counter = field(default_factory=Counter)
    flags: Counter = field(default_factory=Counter)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    seen: set[str] = field(default_factory=set)

    def used(self, key: str, completion_tokens: int, prompt_tokens: int, seconds: float) -> None:
        """Count the cost of a generation, once however often it is used."""
        if key not in self.seen:
            self.seen.add(key)
            self.prompt_tokens += prompt_tokens
            self.completion_tokens += completion_tokens
            self.seconds += seconds

    def summary(self, model: str) -> dict:
        """The totals, for run.json and W&B."""
        return {
            "model": model, "texts": self.texts.total(), "calls": self.calls.total(), "hits": self.hits.total(),
            "prompt_tokens": self.prompt_tokens, "completion_tokens": self.completion_tokens,
            "seconds": round(self.seconds, 1), "fallbacks": self.fallbacks.total(),
            "by_stage": {stage: {"texts": self.texts[stage], "fallbacks": self.fallbacks[stage]}
                         for stage in sorted(self.texts)},
            "flags": dict(sorted(self.flags.items())),
        }


class LanguageModel:
    """A store in front of an engine that is made when, and only when, the store lacks something.

    With `dry` nothing is generated: misses are counted in `usage.calls` and answered by their fallbacks, so that the
    cost of a run can be told before it is spent.
    """

    def __init__(self, name: str, store: Store, make_engine: Callable[[], Engine], *, allowed: bool = True,
                 dry: bool = False):
        self.name, self.store, self.usage = name, store, Usage()
        self._make_engine, self._engine, self._allowed, self._dry = make_engine, None, allowed, dry
        self._planned: set[str] = set()
        self.planned_tokens = Counter()

    def ask(self, questions: Sequence[Question], attempts: int) -> list[Answer]:
        """One answer for each question, in order. Draws go on, up to `attempts`, while the checks fail.

        Raises UserError where the store lacks texts and no engine may or can be started.
        """
        answers: list[Answer | None] = [None] * len(questions)
        pending = list(range(len(questions)))
        for attempt in range(attempts):
            requests = {index: _redraw(questions[index].request, attempt) for index in pending}
            self._fill(list(requests.values()), first=attempt == 0)
            still = []
            for index, request in requests.items():
                row = self.store.get(request.key(self.name))
                if row is None:
                    answers[index] = Answer(questions[index].fallback)
                    continue
                self.usage.used(row.key, row.completion_tokens, row.prompt_tokens, row.seconds)
                flags = questions[index].judge(row.completion, row.finish)
                self.usage.flags.update(flags)
                answers[index] = Answer(row.completion, flags, attempt + 1)
                if flags:
                    still.append(index)
            pending = still
        for index in pending:
            answers[index] = replace(answers[index], text=questions[index].fallback, fallback=True)
            self.usage.fallbacks[questions[index].request.stage] += 1
        return answers

    def _fill(self, requests: list[Request], first: bool) -> None:
        """Bring into the store what it lacks of the requests, in one go: repeats dropped, equal prefixes together."""
        missing = {}
        for request in requests:
            key = request.key(self.name)
            if first:
                self.usage.texts[request.stage] += 1
            if self.store.get(key) is None:
                missing.setdefault(key, request)
            elif first:
                self.usage.hits[request.stage] += 1
        if missing:
            self.store.refresh()
            missing = {key: request for key, request in missing.items() if self.store.get(key) is None}
        if not missing:
            return
        if self._dry:
            for key, request in missing.items():
                if key not in self._planned:
                    self._planned.add(key)
                    self.usage.calls[request.stage] += 1
                    self.planned_tokens["prompt"] += sum(len(content) for _, content in request.messages) // 4
                    self.planned_tokens["completion"] += request.max_tokens // 2
            return
        ordered = sorted(missing.values(), key=lambda request: (request.messages[:-1], len(request.messages[-1][1])))
        engine = self._start(ordered)
        seeds = [int(request.key(self.name)[:8], 16) % 2**31 for request in ordered]
        with progress() as bar:
            task = bar.add_task(f"{self.name}: {', '.join(sorted({request.stage for request in ordered}))}",
                                total=len(ordered))
            for index, completion in engine.generate(ordered, seeds):
                self.store.put(ordered[index], self.name, completion)
                self.usage.calls[ordered[index].stage] += 1
                bar.advance(task)

    def _start(self, missing: list[Request]) -> Engine:
        if self._engine is None:
            what = f"{len(missing)} texts of the stage {missing[0].stage} are not in the store {self.store.path}"
            if not self._allowed:
                raise UserError(f"{what}, and store.engine=false forbids to generate them; point store.path or "
                                "store.recorded to a store that has them, or set store.engine=true")
            try:
                self._engine = self._make_engine()
            except UserError as error:
                raise UserError(f"{what}: {error}") from error
        return self._engine


def _redraw(request: Request, attempt: int) -> Request:
    if attempt == 0:
        return request
    return replace(request, attempt=attempt, temperature=max(request.temperature, REDRAW_TEMPERATURE))


def canonical(schema: dict) -> str:
    """A JSON schema in the one form that enters keys."""
    return json.dumps(schema, sort_keys=True, ensure_ascii=True)


def parsed(text: str) -> dict | None:
    """The JSON object that a completion holds, also where prose or a code fence stands around it; None where none."""
    start, end = text.find("{"), text.rfind("}")
    try:
        value = json.loads(text[start : end + 1])
        # JSON may hold half of a surrogate pair, which neither UTF-8 nor a tokenizer takes.
        json.dumps(value, ensure_ascii=False).encode()
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
