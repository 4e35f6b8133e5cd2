"""GGUF models, run by llama.cpp in this process."""

import hashlib
import importlib.util
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from functools import partial
from pathlib import Path

from ...config.schema import LlamaCppConfig
from ...errors import UserError
from ..protocol import Completion, Request
from .llamacpp_autotune import CACHE, fastest_settings

TRIAL = 8.0
"""Seconds after which a trial of one setting starts no further request."""


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _parts(config: LlamaCppConfig) -> list[Path]:
    """Return the data file of each package, in order; packages are located but not imported."""
    parts = []
    for package in config.packages:
        # find_spec of a dotted name would import the parents.
        spec = importlib.util.find_spec(package) if package.isidentifier() else None
        if spec is None or spec.submodule_search_locations is None:
            raise UserError(f"llm {config.model} needs the package {package}, which is not installed; {config.install}")
        folder = Path(next(iter(spec.submodule_search_locations)))
        files = sorted(folder.glob("*.gguf")) or sorted(folder.glob("data/part*.bin"))
        if len(files) != 1:
            raise UserError(
                f"llm {config.model}: {folder} has {len(files)} model files, expected one; {config.install}"
            )
        parts += files
    return parts


def model_file(config: LlamaCppConfig) -> Path:
    """Return the GGUF file: llm.path, the file of one package, or the parts of several packages joined under CACHE.

    Raises UserError if a file is missing or its sha256 differs from llm.sha256.
    """
    if config.path is None and not config.packages:
        raise UserError("llm.path is not set and llm.packages is empty; give llm.path=/path/to/model.gguf")
    parts = [Path(config.path)] if config.path else _parts(config)
    if config.path and not parts[0].is_file():
        raise UserError(f"llm.path={config.path} does not exist; give the path of a GGUF file")
    if len(parts) == 1:
        path = parts[0]
    else:
        path = CACHE / f"{config.model}.gguf"
        size = sum(part.stat().st_size for part in parts)
        if not path.is_file() or path.stat().st_size != size:
            CACHE.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=CACHE, delete=False) as joined:
                for part in parts:
                    with part.open("rb") as file:
                        shutil.copyfileobj(file, joined, 2**24)
            os.replace(joined.name, path)
    if config.sha256 and (digest := _sha256(path)) != config.sha256:
        raise UserError(
            f"{path} has the sha256 {digest}, but llm.sha256={config.sha256}; delete the file or install the declared "
            "version"
        )
    return path


class LlamaCppEngine:
    """A llama.cpp server in this process, with measured threads and slots; it caches the common prefix of prompts."""

    def __init__(self, config: LlamaCppConfig):
        """Load the model. Raises UserError if the file or package is missing, or the file has another sha256."""
        path = model_file(config)
        try:
            import xllamacpp
        except ModuleNotFoundError as error:
            raise UserError(f"llm {config.model} needs the package xllamacpp; {config.install}") from error
        self.threads, self.slots = fastest_settings(path, config, partial(_rate, xllamacpp, path, config.context))
        self._server = _server(xllamacpp, path, config.context, self.threads, self.slots)

    def generate(self, requests: Sequence[Request], seeds: Sequence[int]) -> Iterator[tuple[int, Completion]]:
        """Yield (index, completion) as they finish, started in the order of the requests.

        Raises RuntimeError if llama.cpp fails, and UserError if a request has images. Closing the iterator starts no
        further request and waits for the running ones, which cannot be cancelled.
        """
        if any(request.images for request in requests):
            raise UserError(
                "llm.kind=llamacpp reads no images; choose a model that does, with llm=openai, llm=vllm or "
                "llm=transformers"
            )
        pool = ThreadPoolExecutor(self.slots)
        try:
            futures = {
                pool.submit(_answer, self._server, request, seed): index
                for index, (request, seed) in enumerate(zip(requests, seeds, strict=True))
            }
            for future in as_completed(futures):
                completion = future.result()
                yield futures[future], replace(completion, seconds=completion.seconds / self.slots)
        finally:
            pool.shutdown(cancel_futures=True)


def _answer(server, request: Request, seed: int) -> Completion:
    body = {
        "messages": [{"role": role, "content": content} for role, content in request.messages],
        "temperature": request.temperature,
        "max_tokens": request.max_tokens,
        "seed": seed,
        "cache_prompt": True,
    }
    if request.schema:
        body["response_format"] = {"type": "json_schema", "json_schema": {"schema": json.loads(request.schema)}}
    start = time.perf_counter()
    answer = server.handle_chat_completions(body)
    answer = json.loads(answer) if isinstance(answer, str) else answer
    if "choices" not in answer:
        raise RuntimeError(f"llama.cpp failed in the stage {request.stage}: {answer}")
    choice, usage = answer["choices"][0], answer["usage"]
    return Completion(
        text=choice["message"]["content"] or "",
        finish=choice["finish_reason"],
        prompt_tokens=usage["prompt_tokens"],
        completion_tokens=usage["completion_tokens"],
        seconds=time.perf_counter() - start,
    )


def _server(xllamacpp, path: Path, context: int, threads: int, slots: int):
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(path)
    parameters.n_ctx = context * slots  # llama.cpp divides it among the slots
    parameters.n_parallel = slots
    parameters.verbosity = -1
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = threads
    return xllamacpp.Server(parameters)


def _rate(xllamacpp, path: Path, context: int, threads: int, slots: int) -> float:
    """Return the short requests per second of a server with these threads and slots; they share a long prefix."""
    server = _server(xllamacpp, path, context, threads, slots)

    def ask(number: int, max_tokens: int = 24) -> None:
        messages = (
            ("system", "You rewrite notes in plain English sentences. " * 8),
            ("user", f"Note {number}: a round red thing on a table. " * 3),
        )
        _answer(server, Request("speed", messages, 0.0, max_tokens), 0)

    def timed(number: int) -> bool:
        within_trial = time.perf_counter() < start + TRIAL
        if within_trial:
            ask(number)
        return within_trial

    with ThreadPoolExecutor(slots) as pool:
        list(pool.map(lambda _: ask(0, 1), range(slots)))  # warm up: every slot caches the prefix
        start = time.perf_counter()
        done = sum(pool.map(timed, range(1, max(4, 2 * slots) + 1)))
    return done / (time.perf_counter() - start)
