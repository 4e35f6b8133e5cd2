"""Generate texts through the store: one generation for equal requests, with checks, redraws and fallbacks."""

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
"""Lowest temperature of a redraw: at temperature 0 it would repeat the first draw."""


@dataclass(frozen=True)
class GenerationTask:
    """A request, the checks of its completion, and the fallback text for when every draw fails them.

    `judge` takes the completion and its finish reason and returns the names of the failed checks.
    """

    request: Request
    judge: Callable[[str, str], tuple[str, ...]]
    fallback: str


@dataclass(frozen=True)
class GenerationResult:
    """The text to use. `flags` are the failed checks of the last draw; `fallback` is True if the text replaces it."""

    text: str
    flags: tuple[str, ...] = ()
    attempts: int = 1
    fallback: bool = False


@dataclass
class Usage:
    """Counts of the requests of a run and of their cost.

    `texts`, `calls` (new generations), `hits` (stored ones) and `fallbacks` count by stage, `flags` by check.
    Tokens and seconds include stored generations, each counted once (`used_keys`); `new_completion_tokens` counts
    new generations only.
    """

    texts: Counter = field(default_factory=Counter)
    calls: Counter = field(default_factory=Counter)
    hits: Counter = field(default_factory=Counter)
    fallbacks: Counter = field(default_factory=Counter)
    flags: Counter = field(default_factory=Counter)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    new_completion_tokens: int = 0
    used_keys: set[str] = field(default_factory=set)

    def add(self, key: str, completion_tokens: int, prompt_tokens: int, seconds: float) -> None:
        """Add the cost of a generation; a repeated key adds nothing."""
        if key not in self.used_keys:
            self.used_keys.add(key)
            self.prompt_tokens += prompt_tokens
            self.completion_tokens += completion_tokens
            self.seconds += seconds

    def summary(self, model: str) -> dict:
        """Return the totals for run.json and W&B."""
        return {
            "model": model,
            "texts": self.texts.total(),
            "calls": self.calls.total(),
            "hits": self.hits.total(),
            "generations": len(self.used_keys),
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "seconds": round(self.seconds, 1),
            "fallbacks": self.fallbacks.total(),
            "by_stage": {
                stage: {"texts": self.texts[stage], "fallbacks": self.fallbacks[stage]} for stage in sorted(self.texts)
            },
            "flags": dict(sorted(self.flags.items())),
        }


def merge_usage(first: dict, second: dict) -> dict:
    """Return the sum of two summaries, with the model of the second."""
    total = dict(first)
    for key, value in second.items():
        if isinstance(value, dict):
            total[key] = merge_usage(first.get(key, {}), value)
        else:
            total[key] = value if isinstance(value, str) else round(first.get(key, 0) + value, 1)
    return total


class Cancelled(Exception):
    """Generation stopped because its texts are no longer needed."""


class LanguageModel:
    """A store in front of an engine; the engine is created when the first text is missing.

    `allowed=False` forbids the engine: a missing text raises UserError.

    `dry` generates nothing: `planned` collects the missing requests and their fallbacks are returned, to estimate the
    cost of a run in advance.

    `share` = (index, count) generates only the missing texts whose key belongs to that index and waits for the others,
    which other shards or ranks generate. After `patience` seconds without a new text, it generates them itself.
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
        """Called after each completion; if None, each batch of generations shows its own progress bar."""
        self.cancelled = threading.Event()
        """Once set, a request that is not in the store raises Cancelled."""

    def ask(self, tasks: Sequence[GenerationTask], attempts: int) -> list[GenerationResult]:
        """Return one result for each task, in order; draw up to `attempts` times while the checks fail.

        Raises UserError if the store lacks texts and the engine is forbidden or cannot start.
        """
        results: list[GenerationResult | None] = [None] * len(tasks)
        pending = list(range(len(tasks)))
        for attempt in range(attempts):
            requests = [_redraw(tasks[index].request, attempt) for index in pending]
            failed = []
            for index, row in zip(pending, self._rows(requests, first=attempt == 0), strict=True):
                if row is None:
                    results[index] = GenerationResult(tasks[index].fallback)
                    continue
                self.usage.add(row.key, row.completion_tokens, row.prompt_tokens, row.seconds)
                flags = tasks[index].judge(row.completion, row.finish)
                self.usage.flags.update(flags)
                results[index] = GenerationResult(row.completion, flags, attempt + 1)
                if flags:
                    failed.append(index)
            pending = failed
        for index in pending:
            results[index] = replace(results[index], text=tasks[index].fallback, fallback=True)
            self.usage.fallbacks[tasks[index].request.stage] += 1
        return results

    def _rows(self, requests: list[Request], first: bool) -> list[Row | None]:
        """Return the stored row of each request after generating the missing ones; None for a miss if dry."""
        keys = [request.key(self.name) for request in requests]
        rows = dict(zip(keys, self.store.find(keys), strict=True))
        if first:
            self.usage.texts.update(request.stage for request in requests)
            self.usage.hits.update(request.stage for key, request in zip(keys, requests, strict=True) if rows[key])
        missing = {key: request for key, request in zip(keys, requests, strict=True) if rows[key] is None}
        if missing and self.store.refresh():
            missing = self._missing(missing)
        if self._dry:
            # A plan may hold thousands of requests, and only sent ones need their pixels.
            self.planned |= {key: replace(request, pixels=()) for key, request in missing.items()}
        elif missing:
            index, count = self.share
            own_share = {key: request for key, request in missing.items() if int(key[:8], 16) % count == index}
            self._generate(own_share)
            self._await({key: request for key, request in missing.items() if key not in own_share})
        unresolved = [key for key in rows if rows[key] is None]
        rows |= zip(unresolved, self.store.find(unresolved), strict=True)
        return [rows[key] for key in keys]

    def _missing(self, requests: dict[str, Request]) -> dict[str, Request]:
        rows = self.store.find(list(requests))
        return {key: request for (key, request), row in zip(requests.items(), rows, strict=True) if row is None}

    def _generate(self, missing: dict[str, Request]) -> None:
        """Generate the missing texts, sorted by prefix for the engine's cache, and store each one at once."""
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
                self.usage.new_completion_tokens += completion.completion_tokens
                watch()
                if self.cancelled.is_set():
                    raise Cancelled

    def _await(self, missing: dict[str, Request]) -> None:
        """Wait for the other shards, or generate the texts here after `patience` seconds without a new one."""
        last_progress = time.monotonic()
        while missing:
            if self.store.refresh():
                missing, last_progress = self._missing(missing), time.monotonic()
            elif time.monotonic() - last_progress > self._patience:
                print(
                    f"No progress from other shards for {self._patience:.0f} s: generating the remaining "
                    f"{len(missing)} texts here.",
                    file=sys.stderr,
                )
                return self._generate(missing)
            elif self.cancelled.wait(min(0.5, self._patience / 10)):
                raise Cancelled

    def _start(self, missing: list[Request]) -> Engine:
        if self.cancelled.is_set():
            raise Cancelled
        if self._engine is None:
            problem = f"{len(missing)} texts of the stage {missing[0].stage} are not in the store {self.store.path}"
            if not self._allowed:
                raise UserError(
                    f"{problem}, and store.engine=false forbids generating them; set store.path or store.recorded "
                    "to a store that has them, or set store.engine=true"
                )
            try:
                self._engine = self._make_engine()
            except UserError as error:
                raise UserError(f"{problem}: {error}") from error
        return self._engine


def _redraw(request: Request, attempt: int) -> Request:
    if attempt == 0:
        return request
    return replace(request, attempt=attempt, temperature=max(request.temperature, REDRAW_TEMPERATURE))


def canonical(schema: dict) -> str:
    """Return a JSON schema in its canonical form, which is part of the store key."""
    return json.dumps(schema, sort_keys=True, ensure_ascii=True)


def extract_json(text: str) -> dict | None:
    """Return the first JSON object in a completion, also inside prose or a code fence; None if it has none."""
    decoder = json.JSONDecoder(strict=False)  # models write line breaks into strings
    for start in (index for index, letter in enumerate(text) if letter == "{"):
        try:
            value, _ = decoder.raw_decode(text, start)
            # JSON allows half of a surrogate pair; UTF-8 and tokenizers do not.
            json.dumps(value, ensure_ascii=False).encode()
        except (ValueError, RecursionError):
            continue
        return value
    return None
