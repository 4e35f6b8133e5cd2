"""Measure the cost of an adversarial epoch, and how well prefetching hides a slow server.

    python benchmarks/epoch.py [--check]

Prints JSON:

- full_store: the demo's aligned rows with their recorded perturbations, compared with the same rows without
  perturbation, at equal forward samples; the second epoch of each, which reads its round for the first time; median
  ratio of five alternated pairs; bar 1.05.
- ahead: a language model on a server that sleeps, a new round in each epoch: mean seconds of the epochs after the
  first, divided by the larger of training alone (all rounds stored) and generating alone; bar 1.1.

With --check the exit code is 1 if a bar is missed.
"""

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import lightning as L
import pandas as pd
from sleeping_server import sleeping_server

from project.config.compose import load_config
from project.data.rows import read_rows
from project.llm.factory import open_llm
from project.pipeline.pipeline import open_pipeline
from project.training.datamodule import TextDataModule
from project.training.encoder import load_tokenizer
from project.training.module import RobustModule

BARS = {"full_store": 1.05, "ahead": 1.1}
PAIRS = 5
AHEAD_EPOCHS = 5
LATENCY = 0.5


class Clock(L.Callback):
    """Record the end of each epoch."""

    def __init__(self):
        self.ends: list[float] = []

    def on_train_epoch_end(self, trainer, module):
        self.ends.append(time.perf_counter())


def epochs(arguments: list[str], count: int) -> list[float]:
    """Return the seconds of each epoch after the first, including its texts."""
    config = load_config(arguments)
    rows, llm = read_rows(config.data), open_llm(config)
    with llm.store:
        pipeline = open_pipeline(config, rows, llm)
        llm.watch = lambda: None
        data = TextDataModule(pipeline, rows, load_tokenizer(config.model))
        L.seed_everything(0, verbose=False)
        module = RobustModule(config, rows.target, data.steps_per_epoch * count)
        clock = Clock()
        trainer = L.Trainer(
            max_epochs=count,
            accelerator="cpu",
            devices=1,
            callbacks=[clock],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=0,
            reload_dataloaders_every_n_epochs=1,
        )
        trainer.fit(module, data)
        data.stop_prefetching()
    return [later - earlier for earlier, later in zip(clock.ends, clock.ends[1:], strict=False)]


def full_store() -> dict:
    """Return the ratio of adversarial to plain epochs on the demo's recording."""
    demo = ["experiment=demo", "store.engine=false", "wandb.mode=disabled"]
    pairs = []
    for index in range(PAIRS):
        # The order alternates, so that neither method always runs on the warmer machine.
        seconds = {
            method: epochs([*demo, f"method={method}"], 2)[0]
            for method in (("ours", "tamml") if index % 2 else ("tamml", "ours"))
        }
        pairs.append(seconds["ours"] / seconds["tamml"])
    return {"ratio": round(statistics.median(pairs), 3), "pairs": [round(pair, 3) for pair in pairs]}


def ahead() -> dict:
    """Return the ratio of epochs with prefetching to the larger of training alone and generating alone."""
    with tempfile.TemporaryDirectory() as folder, sleeping_server(LATENCY) as url:
        names = ["apple", "plum", "pear", "fig"]
        rows = [
            {
                "title": f"the {names[index % 4]} number {index} is a round and sweet fruit of the garden",
                "kind": names[index % 4],
            }
            for index in range(240)
        ]
        pd.DataFrame(rows).to_csv(Path(folder) / "rows.csv", index=False)
        arguments = [
            "data=table",
            f"data.path={folder}/rows.csv",
            "data.text=[title]",
            "data.target=kind",
            "method=ours",
            "alignment.style=false",
            "alignment.summary=false",
            "alignment.reasoning=false",
            f"perturbation.rounds={AHEAD_EPOCHS}",
            "perturbation.attempts=1",
            "trainer=cpu",
            "llm=openai",
            "llm.model=sleeping",
            f"llm.base_url={url}",
            "llm.concurrency=16",
            "wandb.mode=disabled",
            "model=minilm",
        ]
        config = load_config([*arguments, f"store.path={folder}/alone"])
        rows, llm = read_rows(config.data), open_llm(config)
        pipeline = open_pipeline(config, rows, llm)
        llm.watch = lambda: None
        traces = pipeline.clean(rows.train)
        start = time.perf_counter()
        pipeline.perturbed(traces, 0)
        generate = time.perf_counter() - start
        both = statistics.mean(epochs([*arguments, f"store.path={folder}/both"], AHEAD_EPOCHS))
        train = statistics.mean(epochs([*arguments, f"store.path={folder}/both"], AHEAD_EPOCHS))
    return {
        "ratio": round(both / max(train, generate), 3),
        "seconds": {
            "epoch": round(both, 2),
            "train_alone": round(train, 2),
            "generate_alone": round(generate, 2),
            "one_after_the_other": round(train + generate, 2),
        },
    }


def main(arguments: list[str]) -> int:
    """Measure and print; return 1 if --check is given and a bar is missed, else 0."""
    report = {"full_store": full_store(), "ahead": ahead()}
    missed = [
        f"{name}: {report[name]['ratio']}, bar {bar}" for name, bar in BARS.items() if report[name]["ratio"] > bar
    ]
    print(json.dumps({**report, "bars": BARS, "missed": missed}, indent=2))
    return int("--check" in arguments and bool(missed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
