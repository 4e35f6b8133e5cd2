"""How many threads and slots llama.cpp is fastest with: measured on the machine at hand, once for each model."""

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
"""Where joined model files and measurements are kept."""
SLOTS = (1, 2, 4, 8)
BUDGET = 40.0
"""Seconds after which nothing more is tried."""


def fastest(path: Path, config: LlamaCppConfig, rate: Callable[[int, int], float]) -> tuple[int, int]:
    """Threads and slots: as given, or the pair with the highest `rate(threads, slots)`, in requests a second.

    What was measured for this file, this number of cores and this llama.cpp is remembered under CACHE.
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
    known = _read(file)
    if name not in known:
        rates = _measured(threads, slots, rate)
        known[name] = best = max(rates, key=rates.get)
        told = ", ".join(f"{pair[0]}x{pair[1]} {value:.2f}" for pair, value in rates.items())
        print(
            f"llama.cpp is fastest here with {best[0]} threads and {best[1]} slots (requests a second by threads x "
            f"slots: {told}); delete {file} to measure again",
            file=sys.stderr,
        )
        with suppress(OSError):  # where nothing can be kept, it is measured at each start
            CACHE.mkdir(parents=True, exist_ok=True)
            aside = file.with_name(f"{file.name}.{os.getpid()}.part")
            aside.write_text(json.dumps({**_read(file), name: best}, indent=2), encoding="utf-8")
            os.replace(aside, file)
    return known[name][0], known[name][1]


def _measured(threads: list[int], slots: list[int], rate: Callable[[int, int], float]) -> dict[tuple[int, int], float]:
    """Rates by (threads, slots): all threads with the fewest slots, then more slots with the best, to the first loss.

    Stops early where the budget is spent: on a busy machine one trial can take long.
    """
    until = time.monotonic() + BUDGET
    rates = {(threads[0], slots[0]): rate(threads[0], slots[0])}
    for count in threads[1:]:
        if time.monotonic() < until:
            rates[count, slots[0]] = rate(count, slots[0])
    best, _ = max(rates, key=rates.get)
    for count in slots[1:]:
        top = max(rates.values())
        if time.monotonic() >= until:
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
