"""Measure opening a store and looking up keys, with 10^4, 10^5 and 10^6 sealed rows.

    python benchmarks/store.py [--check] [rows=10000,100000,1000000]

Prints JSON. For each size: seconds to open, keys/s of look-ups (batches of 1,000 random keys, with their completions),
peak memory of the process, and the same figures for a rival in the same run: a dict of all rows from pyarrow's
to_pylist, as a minimal store would do it. With --check the exit code is 1 if a bar is missed: open <= 3 s,
>= 100,000 keys/s, <= 1 GB.
"""

import hashlib
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from project.llm.store.store import SCHEMA, SEAL_AT, Row, Store, write_shard

BATCH_SIZE = 1_000
BATCHES = 100
BARS = {"open_seconds": 3.0, "keys_per_second": 100_000, "memory_mb": 1000}


def key_of(number: int) -> str:
    """Return the key of row `number`."""
    return hashlib.sha256(str(number).encode()).hexdigest()


def write(folder: Path, rows: int) -> None:
    """Write sealed shards of `rows` rows, with prompts of about 1,000 and completions of about 250 characters."""
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 9))) for _ in range(5000)]
    for start in range(0, rows, SEAL_AT):
        write_shard(
            (
                Row(
                    key_of(number),
                    "summary",
                    " ".join(draw.choices(words, k=150)),
                    " ".join(draw.choices(words, k=40)),
                    "stop",
                    200,
                    60,
                    1.5,
                    "model",
                    "",
                    float(number),
                    f"host-{start}",
                )
                for number in range(start, min(start + SEAL_AT, rows))
            ),
            folder / f"shard-{start}.parquet",
        )


def peak_mb() -> int:
    """Return the peak resident memory of this process; getrusage would include the parent process."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return round(int(line.split()[1]) / 1024)


def measure(folder: Path, rows: int, rival: bool) -> dict:
    """Open the store and look up keys in this process, which does nothing else, and return its figures."""
    base = peak_mb()
    start = time.perf_counter()
    if rival:
        tables = [pq.read_table(path, schema=SCHEMA) for path in sorted(folder.glob("*.parquet"))]
        row_by_key = {row["key"]: row for row in pa.concat_tables(tables).to_pylist()}
        find = lambda keys: [row_by_key.get(key) for key in keys]  # noqa: E731
    else:
        find = Store(folder).find
    find([key_of(0)])
    open_seconds = time.perf_counter() - start
    draw = np.random.default_rng(0)
    batches = [[key_of(number) for number in draw.integers(0, rows, BATCH_SIZE)] for _ in range(BATCHES)]
    start = time.perf_counter()
    assert all(row is not None for batch in batches for row in find(batch))
    seconds = time.perf_counter() - start
    return {
        "open_seconds": round(open_seconds, 3),
        "keys_per_second": round(BATCH_SIZE * BATCHES / seconds),
        "memory_mb": peak_mb(),
        "of_which_imports_mb": base,
    }


def main(arguments: list[str]) -> int:
    """Measure each size in separate processes and print; return 1 if --check is given and a bar is missed, else 0."""
    if arguments[:1] == ["measure"]:
        print(json.dumps(measure(Path(arguments[1]), int(arguments[2]), arguments[3] == "rival")))
        return 0
    options = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    report, missed = {}, []
    for rows in map(int, options.get("rows", "10000,100000,1000000").split(",")):
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder), rows)
            store, rival = (
                json.loads(
                    subprocess.run(
                        [sys.executable, __file__, "measure", folder, str(rows), side],
                        check=True,
                        capture_output=True,
                        text=True,
                    ).stdout
                )
                for side in ("store", "rival")
            )
        report[rows] = {
            "store": store,
            "dict_of_all_rows": rival,
            "ratio": {
                "open": round(store["open_seconds"] / rival["open_seconds"], 3),
                "memory": round(store["memory_mb"] / rival["memory_mb"], 3),
            },
        }
        for name, bar in BARS.items():
            is_met = store[name] >= bar if name == "keys_per_second" else store[name] <= bar
            if not is_met:
                missed.append(f"{rows} rows: {name} {store[name]}, bar {bar}")
    print(json.dumps({"rows": report, "bars": BARS, "missed": missed}, indent=2))
    return int("--check" in arguments and bool(missed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
