"""Opening a store and looking up in it, at 10^4, 10^5 and 10^6 sealed rows.

    python benchmarks/store.py [--check] [rows=10000,100000,1000000]

Prints JSON. For each size: seconds to open, keys/s of batched look-ups (batches of 1,000 keys drawn at random, with
their completions), peak memory of the process, and the rival's figures measured in the same run: a dict of all rows
made with pyarrow's to_pylist, as a store of a few lines would do it. With --check it exits 1 when a bar is missed:
open <= 3 s, >= 100,000 keys/s, <= 1 GB.
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

BATCH = 1_000
BATCHES = 100
BARS = {"open_seconds": 3.0, "keys_per_second": 100_000, "memory_mb": 1000}


def key_of(number: int) -> str:
    """The key of the row `number`."""
    return hashlib.sha256(str(number).encode()).hexdigest()


def write(folder: Path, rows: int) -> None:
    """`rows` rows with prompts of some 1,000 and completions of some 250 characters, in shards as they are sealed."""
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
    """The most memory that this process ever held; getrusage would count its parent's too."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return round(int(line.split()[1]) / 1024)


def measured(folder: Path, rows: int, rival: bool) -> dict:
    """Figures of this process, which does nothing else."""
    base = peak_mb()
    start = time.perf_counter()
    if rival:
        tables = [pq.read_table(path, schema=SCHEMA) for path in sorted(folder.glob("*.parquet"))]
        known = {row["key"]: row for row in pa.concat_tables(tables).to_pylist()}
        find = lambda keys: [known.get(key) for key in keys]  # noqa: E731
    else:
        find = Store(folder).find
    find([key_of(0)])
    opened = time.perf_counter() - start
    draw = np.random.default_rng(0)
    batches = [[key_of(number) for number in draw.integers(0, rows, BATCH)] for _ in range(BATCHES)]
    start = time.perf_counter()
    assert all(row is not None for batch in batches for row in find(batch))
    seconds = time.perf_counter() - start
    return {
        "open_seconds": round(opened, 3),
        "keys_per_second": round(BATCH * BATCHES / seconds),
        "memory_mb": peak_mb(),
        "of_which_imports_mb": base,
    }


def main(arguments: list[str]) -> int:
    """Measure each size in processes of its own; 1 where --check finds a missed bar."""
    if arguments[:1] == ["measure"]:
        print(json.dumps(measured(Path(arguments[1]), int(arguments[2]), arguments[3] == "rival")))
        return 0
    given = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    report, missed = {}, []
    for rows in map(int, given.get("rows", "10000,100000,1000000").split(",")):
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder), rows)
            store, rival = (
                json.loads(
                    subprocess.run(
                        [sys.executable, __file__, "measure", folder, str(rows), who],
                        check=True,
                        capture_output=True,
                        text=True,
                    ).stdout
                )
                for who in ("store", "rival")
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
            good = store[name] >= bar if name == "keys_per_second" else store[name] <= bar
            if not good:
                missed.append(f"{rows} rows: {name} {store[name]}, bar {bar}")
    print(json.dumps({"rows": report, "bars": BARS, "missed": missed}, indent=2))
    return int("--check" in arguments and bool(missed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
