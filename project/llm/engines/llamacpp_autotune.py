"""Measure the fastest numbers of threads and slots of llama.cpp on this machine, once for each model."""

import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ...config.schema import LlamaCppConfig

CACHE = Path(os.environ.get("TCR_CACHE", Path.home() / ".cache" / "text-centric-robustness"))
"""Folder of joined model files and measurements."""
SLOTS = (1, 2, 4, 8)
"""Numbers of slots to measure."""
BUDGET = 40.0
"""Seconds after which no further setting is measured."""


def fastest_settings(path: Path, config: LlamaCppConfig, rate: Callable[[int, int], float]) -> tuple[int, int]:
    """Return threads and slots: those of the config, or the pair with the highest `rate(threads, slots)` (requests/s).

    The result for this file, number of cores and version of llama.cpp is cached under CACHE.
    """
    cores = len(os.sched_getaffinity(0))
    threads = [config.threads] if config.threads else sorted({cores, max(1, cores // 2)}, reverse=True)
    slots = [config.slots] if config.slots else [count for count in SLOTS if count <= 2 * cores]
    if len(threads) == len(slots) == 1:
        return threads[0], slots[0]
    name = (
        f"{path.name} {path.stat().st_size} cores={cores} threads={config.threads} slots={config.slots} "
        f"xllamacpp={importlib.metadata.version('xllamacpp')}"
    )
    file = CACHE / "llamacpp.json"
    cached = _read(file)
    if name not in cached:
        rates = _measure(threads, slots, rate)
        cached[name] = best = max(rates, key=rates.get)
        figures = ", ".join(f"{pair[0]}x{pair[1]} {value:.2f}" for pair, value in rates.items())
        print(
            f"llama.cpp is fastest with {best[0]} threads and {best[1]} slots (requests/s by threads x slots: "
            f"{figures}); delete {file} to measure again",
            file=sys.stderr,
        )
        with suppress(OSError):  # without a writable cache, each start measures again
            CACHE.mkdir(parents=True, exist_ok=True)
            temporary = file.with_name(f"{file.name}.{os.getpid()}.part")
            temporary.write_text(json.dumps({**_read(file), name: best}, indent=2), encoding="utf-8")
            os.replace(temporary, file)
    return cached[name][0], cached[name][1]


def _measure(threads: list[int], slots: list[int], rate: Callable[[int, int], float]) -> dict[tuple[int, int], float]:
    """Return rates by (threads, slots): each threads value with the fewest slots, then more slots with the best one.

    Stops at the first setting that is no faster, or after BUDGET seconds: a trial on a busy machine can be slow.
    """
    deadline = time.monotonic() + BUDGET
    rates = {(threads[0], slots[0]): rate(threads[0], slots[0])}
    for count in threads[1:]:
        if time.monotonic() < deadline:
            rates[count, slots[0]] = rate(count, slots[0])
    best, _ = max(rates, key=rates.get)
    for count in slots[1:]:
        top = max(rates.values())
        if time.monotonic() >= deadline:
            break
        rates[best, count] = rate(best, count)
        if rates[best, count] <= top:
            break
    return rates


def _read(file: Path) -> dict:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
