"""Servers with the OpenAI protocol: vLLM, SGLang, TGI, llama-server, hosted APIs."""

import asyncio
import json
import os
import random
import time
from base64 import b64encode
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

import numpy as np

from ...config.schema import OpenAIConfig
from ...data.images import png
from ...errors import UserError
from ..protocol import Completion, Request

_RESUME = "finished texts are in the store; run the same command to resume"


class BadAnswer(Exception):
    """The server returned HTTP 200 without a completion."""


class OpenAIEngine:
    """Up to `concurrency` concurrent requests over one client.

    The client retries 408, 409, 429, 5xx, time-outs and broken connections, with backoff and jitter, and respects
    Retry-After. This class retries answers without a completion, up to `retries` times as well.
    """

    def __init__(self, config: OpenAIConfig):
        """Check the configuration. Raises UserError if the client is not installed or llm.base_url is invalid."""
        try:
            import openai
        except ModuleNotFoundError as error:
            raise UserError(f"llm {config.model} needs the package openai; run: pip install -e '.[openai]'") from error
        address = urlsplit(config.base_url)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise UserError(f"llm.base_url={config.base_url} must start with http:// or https:// and name a host")
        if address.username or address.password or address.query:
            raise UserError(
                "llm.base_url must have no user, password or query, because run folders keep it; set the key in the "
                f"environment variable {config.key_env}"
            )
        self._library, self._config = openai, config

    def generate(self, requests: Sequence[Request], seeds: Sequence[int]) -> Iterator[tuple[int, Completion]]:
        """Yield (index, completion) as they arrive.

        Raises UserError if the server rejects a request or fails more than `retries` times in a row, after yielding the
        completions before it. Closing the iterator cancels the running requests.
        """
        tasks = iter(enumerate(zip(requests, seeds, strict=True)))
        # No second thread: the event loop pauses while the caller handles an answer, which is short.
        with asyncio.Runner() as runner:
            answers: asyncio.Queue = asyncio.Queue()
            client = self._client()
            count = min(self._config.concurrency, len(requests))

            async def start() -> asyncio.Future:
                gathered = asyncio.gather(*(self._work(client, tasks, answers, count) for _ in range(count)))
                gathered.add_done_callback(
                    lambda done: None if done.cancelled() else answers.put_nowait(done.exception())
                )
                return gathered

            async def stop() -> None:
                workers.cancel()
                await client.close()

            workers = runner.run(start())
            try:
                for _ in requests:
                    answer = runner.run(answers.get())
                    if isinstance(answer, BaseException):
                        raise answer
                    yield answer
            finally:
                runner.run(stop())

    def _client(self):
        key = os.environ.get(self._config.key_env) or "none"
        return self._library.AsyncOpenAI(
            base_url=self._config.base_url, api_key=key, timeout=self._config.timeout, max_retries=self._config.retries
        )

    async def _work(self, client, tasks: Iterator, answers: asyncio.Queue, count: int) -> None:
        """Send requests one after another until `tasks` is empty; one of `count` concurrent workers."""
        for index, (request, seed) in tasks:
            answers.put_nowait((index, await self._answer(client, request, seed, count)))

    async def _answer(self, client, request: Request, seed: int, count: int) -> Completion:
        for attempt in range(self._config.retries + 1):
            start = time.perf_counter()
            try:
                answer = await client.chat.completions.create(**self._body(request, seed))
                return _completion(answer, (time.perf_counter() - start) / count)
            except (BadAnswer, ValueError) as error:
                last = error
                if attempt < self._config.retries:
                    await asyncio.sleep(min(0.5 * 2**attempt, 8.0) * random.uniform(0.75, 1))
            except self._library.OpenAIError as error:
                raise self._failure(error, request) from None  # the traceback would contain the request and its key
        raise UserError(
            f"{self._where()} sent {self._config.retries + 1} answers without a completion, the last: "
            f"{_one_line(str(last))}; {_RESUME}"
        )

    def _body(self, request: Request, seed: int) -> dict:
        body = {
            "model": self._config.served or self._config.model,
            "messages": [{"role": role, "content": _content(pieces)} for role, pieces in request.pieces()],
            "temperature": request.temperature,
            "max_tokens": request.max_tokens,
            "seed": seed,
        }
        if request.schema and self._config.structured == "json_schema":
            body["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "answer", "strict": True, "schema": json.loads(request.schema)},
            }
        elif request.schema and self._config.structured == "json_object":
            body["response_format"] = {"type": "json_object"}
        return body

    def _failure(self, error: Exception, request: Request) -> UserError:
        """Return the error for a failure that remains after all retries."""
        status = getattr(error, "status_code", None)
        if status in (401, 403):  # the server's message may repeat a part of the key
            return UserError(
                f"{self._where()} rejected the key (HTTP {status}); set the environment variable {self._config.key_env}"
            )
        message = _one_line(str(getattr(error, "message", error)))
        key = os.environ.get(self._config.key_env)
        message = message.replace(key, "***") if key else message
        if status is not None and status not in (408, 409, 429) and status < 500:
            return UserError(
                f"{self._where()} rejected a request of the stage {request.stage} (HTTP {status}): {message}; "
                f"llm.served={self._config.served or self._config.model} must be a model that it serves, and "
                "llm.structured a format that it supports"
            )
        cause = f"HTTP {status}: {message}" if status else f"{message} ({type(error.__cause__ or error).__name__})"
        return UserError(
            f"{self._where()} failed {self._config.retries + 1} times ({cause}); {_RESUME}. Check the server, or raise "
            "llm.timeout or llm.retries"
        )

    def _where(self) -> str:
        return f"the server {self._config.base_url}"


def _completion(answer, seconds: float) -> Completion:
    """Return the completion of an answer; its text may be empty. Raises BadAnswer if there is none."""
    choices = getattr(answer, "choices", None)
    message = getattr(choices[0], "message", None) if isinstance(choices, list) and choices else None
    if message is None:
        raise BadAnswer(answer if isinstance(answer, str) else "no choices")
    usage = getattr(answer, "usage", None)
    return Completion(
        # JSON allows half of a surrogate pair, UTF-8 does not.
        text=(message.content or "").encode("utf-16", "surrogatepass").decode("utf-16", "replace"),
        finish="length" if choices[0].finish_reason == "length" else "stop",
        prompt_tokens=getattr(usage, "prompt_tokens", 0) or 0,
        completion_tokens=getattr(usage, "completion_tokens", 0) or 0,
        seconds=seconds,
    )


def _content(pieces: list[str | np.ndarray]) -> str | list[dict]:
    """Return the content of a message for the protocol: plain text, or parts with PNG images."""
    if len(pieces) == 1 and isinstance(pieces[0], str):
        return pieces[0]
    return [
        {"type": "text", "text": piece}
        if isinstance(piece, str)
        else {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{b64encode(png(piece)).decode()}"}}
        for piece in pieces
    ]


def _one_line(text: str) -> str:
    """Return a server's message as one line of at most 200 characters."""
    return " ".join(text.split())[:200]
