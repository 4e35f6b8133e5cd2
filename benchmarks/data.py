"""Measure reading of data: time for a table, memory for a large file, decodings of images.

    python benchmarks/data.py [--check] [rows=10000] [avito=10000,100000]

Prints JSON; all rows are synthetic:

- table: seconds from a CSV of `rows` rows to descriptions (read_rows and describe, no language model), compared with
  the minimal work of pandas.read_csv and one format string; bar 10 s.
- memory: peak MB of reading Avito's rows, in a separate process for each number of rows, with the same caps, compared
  with a reader that makes Records of all rows at once; ratio of the larger file to the smaller, bar 1.2.
- images: decodings per file over all conditions that do not change the image, and calls of the image expert per
  distinct content, where some files are copies; bar 1 for both.

With --check the exit code is 1 if a bar is missed.
"""

import csv
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from project.config.schema import AvitoConfig, ExpertsConfig, RobustnessConfig, SplitConfig, TableConfig
from project.data.record import Record
from project.data.rows import read_rows

BARS = {"table_seconds": 10.0, "memory_ratio": 1.2, "decodings_per_file": 1.0, "looks_per_content": 1.0}
CAPS = SplitConfig(max_train=1000, max_val=200, max_test=300)
FILES, CONTENTS = 24, 8
AVITO = (
    "item_id,user_id,region,city,parent_category_name,category_name,param_1,param_2,param_3,title,description,"
    "price,item_seq_number,activation_date,user_type,image,image_top_1,deal_probability"
).split(",")


def vocabulary(draw: random.Random, letters: str) -> list[str]:
    """Return 5,000 random words."""
    return ["".join(draw.choices(letters, k=draw.randint(2, 10))) for _ in range(5000)]


def write_table(path: Path, rows: int) -> None:
    """Write two text columns, ten table columns with missing cells, and three classes."""
    draw = random.Random(0)
    words = vocabulary(draw, "abcdefghijklmnopqrstuvwxyz")
    pd.DataFrame(
        [
            {
                "title": " ".join(draw.choices(words, k=6)),
                "body": " ".join(draw.choices(words, k=60)),
                **{f"number {column}": draw.choice([None, draw.randint(0, 99), draw.random()]) for column in range(5)},
                **{f"word {column}": draw.choice([None, *words[:20]]) for column in range(5)},
                "kind": draw.choice("abc"),
                "seller": f"s{draw.randrange(rows)}",
            }
            for _ in range(rows)
        ]
    ).to_csv(path, index=False)


def write_avito(folder: Path, rows: int) -> None:
    """Write train.csv with the competition's columns, Russian letters, and newlines and quotes in the descriptions."""
    draw = random.Random(0)
    words = vocabulary(draw, "абвгдежзийклмнопрстуфхцчшщыьэюя")
    with (folder / "train.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(AVITO)
        for row in range(rows):
            text = draw.choices(words, k=draw.randint(5, 60))
            writer.writerow(
                [
                    f"{row:012x}",
                    f"{draw.randrange(rows):012x}",
                    words[draw.randrange(30)],
                    words[draw.randrange(300)],
                    words[draw.randrange(9)],
                    words[draw.randrange(47)],
                    draw.choice(["", words[draw.randrange(99)]]),
                    "",
                    "",
                    " ".join(text[:4]).title(),
                    "\n".join([" ".join(text), '"'.join(text[:3])]),
                    draw.choice(["", f"{draw.randrange(10**6)}.0"]),
                    draw.randrange(1, 999),
                    f"2017-03-{draw.randint(15, 28)}",
                    draw.choice(["Private", "Company", "Shop"]),
                    "",
                    "",
                    round(draw.random(), 5),
                ]
            )


def peak_mb() -> int:
    """Return the peak resident memory of this process; getrusage would include the parent process."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return round(int(line.split()[1]) / 1024)


def read_avito(folder: Path, rival: bool) -> dict:
    """Read the rows in this process, which does nothing else, and return its figures."""
    base, start = peak_mb(), time.perf_counter()
    if rival:
        frame = pd.read_csv(folder / "train.csv")
        records = [
            Record(
                row["item_id"],
                row["user_id"],
                None,
                f"{row['title']}\n{row['description']}",
                {name: row[name] for name in AVITO[2:9]},
                row["deal_probability"],
            )
            for row in frame.to_dict("records")
        ]
        count = len(records)
    else:
        rows = read_rows(AvitoConfig(name="avito", question="?", path=str(folder), images=False, split=CAPS))
        count = len(rows.train) + len(rows.val) + len(rows.test)
    return {
        "memory_mb": peak_mb(),
        "of_which_imports_mb": base,
        "rows_kept": count,
        "seconds": round(time.perf_counter() - start, 2),
    }


def table(folder: Path, rows: int) -> dict:
    """Return the seconds from a file to its texts, and those of the minimal work."""
    from project.llm.store.store import Store
    from project.pipeline.describe import describe

    path = folder / "rows.csv"
    write_table(path, rows)
    columns = [f"{kind} {column}" for kind in ("number", "word") for column in range(5)]
    config = TableConfig(
        name="made", question="?", path=str(path), text=["title", "body"], table=columns, target="kind", group="seller"
    )
    start = time.perf_counter()
    split = read_rows(config)
    texts = describe([*split.train, *split.val, *split.test], ExpertsConfig(), Store(folder / "store"))
    seconds = time.perf_counter() - start
    assert len(texts) == rows and all(texts)
    start = time.perf_counter()
    rival_texts = [
        f"{row['title']} {row['body']} " + " ".join(f"The {name} is {row[name]}." for name in columns)
        for row in pd.read_csv(path).to_dict("records")
    ]
    rival_seconds = time.perf_counter() - start
    return {
        "rows": len(rival_texts),
        "seconds": round(seconds, 3),
        "read_csv_and_format_seconds": round(rival_seconds, 3),
        "ratio": round(seconds / rival_seconds, 2),
    }


def images(folder: Path) -> dict:
    """Count decodings per file, and expert calls per content, over conditions that do not change the image."""
    from project.corruption.conditions import evaluation_conditions
    from project.llm.store.store import Store
    from project.pipeline.corrupt import corrupt
    from project.pipeline.describe import describe

    for number in range(FILES):
        noise = np.random.default_rng(number % CONTENTS).integers(0, 255, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.png")
    records = [
        Record(str(number), str(number), folder / f"{number}.png", "some words here", {"a": "1", "b": "2"}, "x")
        for number in range(FILES)
    ]
    conditions = [
        condition
        for condition in evaluation_conditions(RobustnessConfig())
        if condition.kind in ("clean", "order") or "image" not in condition.modalities
    ]
    image_open, decoded_files = Image.open, []

    def counting_open(source, *args, **options):
        decoded_files.append(source)
        return image_open(source, *args, **options)

    store = Store(folder / "images")
    Image.open = counting_open
    try:
        for condition in conditions:
            describe([corrupt(record, condition) for record in records], ExpertsConfig(classifier=False), store)
    finally:
        Image.open = image_open
    store.close()
    return {
        "files": FILES,
        "contents": CONTENTS,
        "conditions": len(conditions),
        "decodings_per_file": round(len(decoded_files) / FILES, 3),
        "looks_per_content": round(len(store.keys()) / CONTENTS, 3),
        "ratio_to_a_decoding_a_condition": round(len(decoded_files) / FILES / len(conditions), 4),
    }


def main(arguments: list[str]) -> int:
    """Measure and print; return 1 if --check is given and a bar is missed, else 0."""
    if arguments[:1] == ["avito"]:
        print(json.dumps(read_avito(Path(arguments[1]), arguments[2] == "rival")))
        return 0
    options = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    sizes = sorted(map(int, options.get("avito", "10000,100000").split(",")))
    memory = {}
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            write_avito(Path(folder), size)
            memory[size] = {
                side: json.loads(
                    subprocess.run(
                        [sys.executable, __file__, "avito", folder, side], check=True, stdout=subprocess.PIPE, text=True
                    ).stdout
                )
                for side in ("source", "rival")
            }
    ratio = {
        side: round(memory[sizes[-1]][side]["memory_mb"] / memory[sizes[0]][side]["memory_mb"], 3)
        for side in ("source", "rival")
    }
    with tempfile.TemporaryDirectory() as folder:
        report = {
            "table": table(Path(folder), int(options.get("rows", 10_000))),
            "memory": {"rows": memory, "ratio": ratio},
            "images": images(Path(folder)),
        }
    figures = {
        "table_seconds": report["table"]["seconds"],
        "memory_ratio": ratio["source"],
        **{name: report["images"][name] for name in ("decodings_per_file", "looks_per_content")},
    }
    missed = [f"{name} {figures[name]}, bar {bar}" for name, bar in BARS.items() if figures[name] > bar]
    print(json.dumps({**report, "bars": BARS, "missed": missed}, indent=2))
    return int("--check" in arguments and bool(missed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
