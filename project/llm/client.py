"""Asking a language model through the store: each distinct request once, judged, drawn again, or replaced."""

import contextlib
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from ..errors import UserError
from ..runtime.progress import progress_bar
from .protocol import Engine, Request
from .store.store import Row, Store

REDRAW_TEMPERATURE = 0.7
"""Least temperature of a second draw: at 0 it would return the first again."""


@dataclass(frozen=True)
class GenerationTask:
    """A request, how its completion is judged, and the text that stands in where every draw fails.

    `judge` takes the completion and its finish reason and returns the names of the failed checks.
    """

    request: Request
    judge: Callable[[str, str], tuple[str, ...]]
    fallback: str


@dataclass(frozen=True)
class GenerationResult:
    """The text to use. `flags` are what the last draw failed by; with `fallback` the text is not the model's."""

    text: str
    flags: tuple[str, ...] = ()
    attempts: int = 1
    fallback: bool = False


@dataclass
class Usage:
    """What a run asked of its language model.

    Tokens and seconds are of all generations used (`seen`), stored ones included; `written` counts the tokens of new
    ones.
    """

    texts: Counter = field(default_factory=Counter)
    calls: Counter = field(default_factory=Counter)
    hits: Counter = field(default_factory=Counter)
    fallbacks: Counter = field(default_factory=Counter)
    flags: Counter = field(default_factory=Counter)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    written: int = 0
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
            "model": model,
            "texts": self.texts.total(),
            "calls": self.calls.total(),
            "hits": self.hits.total(),
            "generations": len(self.seen),
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "seconds": round(self.seconds, 1),
            "fallbacks": self.fallbacks.total(),
            "by_stage": {
                stage: {"texts": self.texts[stage], "fallbacks": self.fallbacks[stage]} for stage in sorted(self.texts)
            },
            "flags": dict(sorted(self.flags.items())),
        }


def merge_usage(first: dict, then: dict) -> dict:
    """Two summaries added up; the model is that of the second."""
    added = dict(first)
    for key, value in then.items():
        if isinstance(value, dict):
            added[key] = merge_usage(first.get(key, {}), value)
        else:
            added[key] = value if isinstance(value, str) else round(first.get(key, 0) + value, 1)
    return added


class Cancelled(Exception):
    """Generation was given up because nobody waits for it any more."""


class LanguageModel:
    """A store in front of an engine that is made when, and only when, the store lacks something.

    With `dry` nothing is generated: misses are counted in `planned` and answered by their fallbacks, so that the cost
    of a run can be told before it is spent.

    With `share` = (index, count) only the missing texts whose key belongs to that index are generated; the others are
    waited for, since other shards, or ranks, generate them. Where none of them is seen to work for `patience` seconds,
    this one takes over what is missing.
    """

    def __init__(
        self,
        name: str,
        store: Store,
        make_engine: Callable[[], Engine],
        *,
        allowed: bool = True,
        dry: bool = False,
        share: tuple[int, int] = (0, 1),
        patience: float = 120.0,
    ):
        self.name, self.store, self.usage, self.share = name, store, Usage(), share
        self._make_engine, self._engine, self._allowed, self._dry = make_engine, None, allowed, dry
        self._patience = patience
        self.planned: dict[str, Request] = {}
        self.watch: Callable[[], None] | None = None
        """Called after each completion; without it, each batch of generations shows a progress bar of its own."""
        self.cancelled = threading.Event()
        """Once set, asking for a text that is not in the store raises Cancelled."""

    def ask(self, questions: Sequence[GenerationTask], attempts: int) -> list[GenerationResult]:
        """One answer for each question, in order. Draws go on, up to `attempts`, while the checks fail.

        Raises UserError where the store lacks texts and no engine may or can be started.
        """
        answers: list[GenerationResult | None] = [None] * len(questions)
        pending = list(range(len(questions)))
        for attempt in range(attempts):
            requests = [_redraw(questions[index].request, attempt) for index in pending]
            still = []
            for index, row in zip(pending, self._rows(requests, first=attempt == 0), strict=True):
                if row is None:
                    answers[index] = GenerationResult(questions[index].fallback)
                    continue
                self.usage.used(row.key, row.completion_tokens, row.prompt_tokens, row.seconds)
                flags = questions[index].judge(row.completion, row.finish)
                self.usage.flags.update(flags)
                answers[index] = GenerationResult(row.completion, flags, attempt + 1)
                if flags:
                    still.append(index)
            pending = still
        for index in pending:
            answers[index] = replace(answers[index], text=questions[index].fallback, fallback=True)
            self.usage.fallbacks[questions[index].request.stage] += 1
        return answers

    def _rows(self, requests: list[Request], first: bool) -> list[Row | None]:
        """What the store has for each request after all that it lacked was generated; None where dry."""
        keys = [request.key(self.name) for request in requests]
        rows = dict(zip(keys, self.store.find(keys), strict=True))
        if first:
            self.usage.texts.update(request.stage for request in requests)
            self.usage.hits.update(request.stage for key, request in zip(keys, requests, strict=True) if rows[key])
        missing = {key: request for key, request in zip(keys, requests, strict=True) if rows[key] is None}
        if missing and self.store.refresh():
            missing = self._lacking(missing)
        if self._dry:
            # Only what is sent needs the images, and a plan may hold thousands.
            self.planned |= {key: replace(request, pixels=()) for key, request in missing.items()}
        elif missing:
            index, count = self.share
            mine = {key: request for key, request in missing.items() if int(key[:8], 16) % count == index}
            self._generate(mine)
            self._await({key: request for key, request in missing.items() if key not in mine})
        lacked = [key for key in rows if rows[key] is None]
        rows |= zip(lacked, self.store.find(lacked), strict=True)
        return [rows[key] for key in keys]

    def _lacking(self, requests: dict[str, Request]) -> dict[str, Request]:
        found = self.store.find(list(requests))
        return {key: request for (key, request), row in zip(requests.items(), found, strict=True) if row is None}

    def _generate(self, missing: dict[str, Request]) -> None:
        """Ask the engine, equal prefixes together, and keep each completion as soon as it is there."""
        if not missing:
            return
        ordered = sorted(missing.values(), key=lambda request: (request.messages[:-1], len(request.messages[-1][1])))
        engine = self._start(ordered)
        seeds = [int(request.key(self.name)[:8], 16) % 2**31 for request in ordered]
        with contextlib.ExitStack() as stack:
            watch = self.watch
            if watch is None:
                bar = stack.enter_context(progress_bar())
                stages = ", ".join(sorted({request.stage for request in ordered}))
                watch = partial(bar.advance, bar.add_task(f"{self.name}: {stages}", total=len(ordered)))
            for index, completion in stack.enter_context(contextlib.closing(engine.generate(ordered, seeds))):
                self.store.put(ordered[index], self.name, completion)
                self.usage.calls[ordered[index].stage] += 1
                self.usage.written += completion.completion_tokens
                watch()
                if self.cancelled.is_set():
                    raise Cancelled

    def _await(self, missing: dict[str, Request]) -> None:
        """Wait until others have generated these, or take over where nothing comes any more."""
        since = time.monotonic()
        while missing:
            if self.store.refresh():
                missing, since = self._lacking(missing), time.monotonic()
            elif time.monotonic() - since > self._patience:
                print(
                    f"no other job has added a text for {self._patience:.0f} s; this one generates the "
                    f"{len(missing)} that it waited for",
                    file=sys.stderr,
                )
                return self._generate(missing)
            elif self.cancelled.wait(min(0.5, self._patience / 10)):
                raise Cancelled

    def _start(self, missing: list[Request]) -> Engine:
        if self.cancelled.is_set():
            raise Cancelled
        if self._engine is None:
            what = f"{len(missing)} texts of the stage {missing[0].stage} are not in the store {self.store.path}"
            if not self._allowed:
                raise UserError(
                    f"{what}, and store.engine=false forbids to generate them; point store.path or "
                    "store.recorded to a store that has them, or set store.engine=true"
                )
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


def extract_json(text: str) -> dict | None:
    """The first JSON object that a completion holds, also where prose or a code fence stands around it; else None."""
    decoder = json.JSONDecoder(strict=False)  # models write line breaks into strings
    for start in (index for index, letter in enumerate(text) if letter == "{"):
        try:
            value, _ = decoder.raw_decode(text, start)
            # JSON may hold half of a surrogate pair, which neither UTF-8 nor a tokenizer takes.
            json.dumps(value, ensure_ascii=False).encode()
        except (ValueError, RecursionError):
            continue
        return value
    return None
