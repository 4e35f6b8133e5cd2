"""How many threads and slots llama.cpp is fastest with: measured on the machine at hand, once for each model."""

import importlib.metadata
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

from ..schema import LlamaCpp

CACHE = Path(os.environ.get("TCR_CACHE", Path.home() / ".cache" / "text-centric-robustness"))
"""Where joined model files and measurements are kept."""
SLOTS = (1, 2, 4, 8)


def fastest(path: Path, config: LlamaCpp, rate: Callable[[int, int], float]) -> tuple[int, int]:
    """Threads and slots: as given, or the pair with the highest `rate(threads, slots)`, in requests a second.

    What was measured for this file, this number of cores and this llama.cpp is remembered under CACHE.
    """
    if config.threads and config.slots:
        return config.threads, config.slots
    cores = len(os.sched_getaffinity(0))
    name = f"{path.name} {path.stat().st_size} cores={cores} threads={config.threads} slots={config.slots} " \
           f"xllamacpp={importlib.metadata.version('xllamacpp')}"
    file = CACHE / "llamacpp.json"
    known = _read(file)
    if name not in known:
        known[name] = best = _measured(config, cores, rate)
        print(f"llama.cpp is fastest here with {best[0]} threads and {best[1]} slots; {file} remembers it",
              file=sys.stderr)
        CACHE.mkdir(parents=True, exist_ok=True)
        aside = file.with_name(f"{file.name}.{os.getpid()}.part")
        aside.write_text(json.dumps({**_read(file), name: best}, indent=2), encoding="utf-8")
        os.replace(aside, file)
    return known[name][0], known[name][1]


def _measured(config: LlamaCpp, cores: int, rate: Callable[[int, int], float]) -> list[int]:
    """The best of the threads with one slot, then the best of the slots with these threads, up to the first loss."""
    threads = [config.threads] if config.threads else sorted({cores, max(1, cores // 2)}, reverse=True)
    rates = {count: rate(count, config.slots or 1) for count in threads}
    best = max(rates, key=rates.get)
    top, slots = rates[best], config.slots or 1
    for count in SLOTS[1:] if not config.slots else ():
        now = rate(best, count)
        if now <= top:
            break
        top, slots = now, count
    return [best, slots]


def _read(file: Path) -> dict:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
