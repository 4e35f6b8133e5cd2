"""Compare training with transformers' Trainer and peft: same model, rows, batch size and steps, on the CPU.

    python benchmarks/training.py [rows=800] [rounds=3] [--check]

The synthetic rows have the lengths of PetFinder descriptions, by the quantiles of 81 published rows (in MiniLM's
tokens: median 64, 90 % below 156, 2.5 % above 256), truncated at 256. Each side tokenizes and trains one epoch in a
separate process; medians over the rounds, which rotate the order. Prints JSON:

- speed: samples/s divided by those of the Trainer, with its default padding (random batches, each padded to its
  longest text) and with train_sampling_strategy="group_by_length"; bars 1.5 and 1.0.
- memory: peak resident set divided by the Trainer's, of the sampling with the smaller one, in separate runs in which
  malloc returns freed blocks (otherwise the heap keeps blocks between batches of different lengths); bar 1.0.
- processes: samples/s of two processes (gloo) divided by twice those of one, one thread each; no bar.
- resume: seconds from the command to the first training step, of a run resumed in mid-epoch divided by a new one; bar
  1.2.

With --check the exit code is 1 if a bar is missed.
"""

import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

BARS = {"speed_default": 1.5, "speed_grouped": 1.0, "memory": 1.01, "resume": 1.2}
LENGTHS = {0: 2, 5: 6, 25: 28, 50: 62, 75: 92, 90: 154, 95: 195, 99: 332, 100: 450}
"""Percentiles of the lengths of descriptions, in tokens without the two special ones."""
WORDS = (
    "dog cat puppy kitten home love good play find food house cute white black brown small friendly young old "
    "active please call owner adopt rescued street mother month vaccinated healthy toilet trained"
).split()
BATCH_SIZE, MAX_TOKENS = 16, 256


def write_rows(folder: Path, count: int) -> Path:
    """Write a CSV of texts with PetFinder's lengths; the class is whether a text has more dogs than cats."""
    draw = np.random.default_rng(0)
    lengths = np.interp(draw.uniform(0, 100, count), list(LENGTHS), list(LENGTHS.values())).round().astype(int)
    texts = [" ".join(draw.choice(WORDS, length)) for length in lengths]
    kinds = ["dogs" if text.count("dog") > text.count("cat") else "cats" for text in texts]
    pd.DataFrame({"text": texts, "kind": kinds}).to_csv(folder / "rows.csv", index=False)
    return folder / "rows.csv"


def arguments(path: Path, *more: str) -> list[str]:
    """Return this project's arguments for clean texts only: one view, no language model."""
    return [
        "data=table",
        f"data.path={path}",
        "data.text=[text]",
        "data.target=kind",
        "method=plain",
        "model=minilm",
        "perturbation.weight=0",
        f"model.max_tokens={MAX_TOKENS}",
        "experts.max_words=1000",
        "data.split.val=0.05",
        "data.split.test=0.05",
        "trainer=cpu",
        f"trainer.batch_size={BATCH_SIZE}",
        "trainer.epochs=1",
        "wandb.mode=disabled",
        f"store.path={path.parent / 'store'}",
        f"output={path.parent / 'outputs'}",
        *more,
    ]


def open_data(path: Path, *more: str):
    """Return the configuration, its rows and the pipeline."""
    from project.config.compose import load_config
    from project.data.rows import read_rows
    from project.llm.factory import open_llm
    from project.pipeline.pipeline import open_pipeline

    config = load_config(arguments(path, *more))
    rows = read_rows(config.data)
    return config, rows, open_pipeline(config, rows, open_llm(config))


def ours(path: Path, *more: str) -> dict:
    """Train one epoch of this project's data module and module; with several processes, time the first one."""
    import lightning as L

    from project.training.datamodule import TextDataModule
    from project.training.encoder import load_tokenizer
    from project.training.module import RobustModule

    config, rows, pipeline = open_data(path, *more)

    class Clock(L.Callback):
        def on_train_start(self, trainer, module):
            self.start = time.perf_counter()

        def on_train_end(self, trainer, module):
            self.seconds = time.perf_counter() - self.start

    data, clock = TextDataModule(pipeline, rows, load_tokenizer(config.model)), Clock()
    L.seed_everything(0, verbose=False)
    trainer = L.Trainer(
        max_epochs=1,
        accelerator="cpu",
        devices=config.trainer.devices,
        strategy=config.trainer.strategy,
        gradient_clip_val=config.trainer.clip,
        callbacks=[clock],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        use_distributed_sampler=False,
    )
    trainer.fit(RobustModule(config, rows.target, data.steps_per_epoch), data)
    return {"seconds": clock.seconds, "samples": len(rows.train), "steps": trainer.global_step}


def rival(path: Path, sampling: str) -> dict:
    """Train one epoch of transformers' Trainer with the same rows, LoRA model and optimizer."""
    from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

    from project.training.encoder import base_model, load_tokenizer, lora_classifier

    config, rows, _ = open_data(path)
    tokenizer, model = (
        load_tokenizer(config.model),
        lora_classifier(base_model(config.model, rows.target, 0), config.model),
    )
    options = TrainingArguments(
        output_dir=str(path.parent / "trainer"),
        num_train_epochs=1,
        per_device_train_batch_size=BATCH_SIZE,
        use_cpu=True,
        learning_rate=config.trainer.lr,
        weight_decay=config.trainer.weight_decay,
        warmup_steps=config.trainer.warmup,
        max_grad_norm=config.trainer.clip,
        train_sampling_strategy=sampling,
        logging_strategy="no",
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        seed=0,
    )
    start = time.perf_counter()
    encoded = tokenizer([record.text for record in rows.train], truncation=True, max_length=MAX_TOKENS)
    texts = [
        {"input_ids": ids, "attention_mask": mask, "labels": rows.target.label(record.target)}
        for ids, mask, record in zip(encoded["input_ids"], encoded["attention_mask"], rows.train, strict=True)
    ]
    trainer = Trainer(model=model, args=options, train_dataset=texts, data_collator=DataCollatorWithPadding(tokenizer))
    trainer.train()
    return {"seconds": time.perf_counter() - start, "samples": len(texts), "steps": trainer.state.global_step}


def first_step(path: Path, start: str, stop_at: str) -> dict:
    """Return the seconds from `start` to the first training step; with `stop_at`, stop at that step and save."""
    from project.cli import train
    from project.config.compose import load_config
    from project.runtime.signals import Interrupted
    from project.training.module import RobustModule

    original_step, figures = RobustModule.training_step, {}

    def training_step(module, batch, batch_idx):
        figures.setdefault("seconds", time.time() - float(start))
        if module.global_step == int(stop_at or module.global_step):
            os.kill(os.getpid(), signal.SIGUSR1)
        return original_step(module, batch, batch_idx)

    RobustModule.training_step = training_step
    try:
        train.run(load_config(arguments(path, "trainer.epochs=3", "perturbation.weight=1")), {})
    except Interrupted:
        return figures
    raise RuntimeError("the run was not interrupted")


CHILDREN = {
    "ours": ours,
    "default": lambda path: rival(path, "random"),
    "grouped": lambda path: rival(path, "group_by_length"),
    "one": lambda path: ours(path),
    "two": lambda path: ours(path, "trainer.devices=2", "trainer.strategy=ddp"),
    "start": first_step,
}


def run_child(kind: str, path: Path, *more: str, **environment: str) -> dict:
    """Run a measurement in a separate process; return its figures and its peak resident set in MB."""
    process = subprocess.run(
        [sys.executable, __file__, "child", kind, str(path), *more],
        capture_output=True,
        text=True,
        env=os.environ | environment,
    )
    if process.returncode:
        raise RuntimeError(process.stderr)
    return json.loads(process.stdout.splitlines()[-1])


def speed_and_memory(path: Path, rounds: int) -> dict:
    """Measure the three sides in alternation and return medians and ratios."""
    sides = ["ours", "default", "grouped"]
    results = [
        {side: run_child(side, path) for side in sides[turn % 3 :] + sides[: turn % 3]} for turn in range(rounds)
    ]
    speeds = {side: [result[side]["samples"] / result[side]["seconds"] for result in results] for side in sides}
    median = {
        side: {
            "samples_per_second": statistics.median(speeds[side]),
            "steps": results[0][side]["steps"],
            "memory": run_child(side, path, MALLOC_MMAP_THRESHOLD_="65536")["memory"],
        }
        for side in sides
    }
    return {side: {name: round(value, 1) for name, value in figures.items()} for side, figures in median.items()} | {
        "speed_default": round(median["ours"]["samples_per_second"] / median["default"]["samples_per_second"], 2),
        "speed_grouped": round(median["ours"]["samples_per_second"] / median["grouped"]["samples_per_second"], 2),
        "memory": round(median["ours"]["memory"] / min(median[side]["memory"] for side in sides[1:]), 3),
    }


def processes(path: Path, rounds: int) -> dict:
    """Compare two processes with one, each with one thread."""
    pairs = [[run_child(kind, path, OMP_NUM_THREADS="1")["seconds"] for kind in ("one", "two")] for _ in range(rounds)]
    return {
        "efficiency": round(statistics.median(one / (2 * two) for one, two in pairs), 2),
        "seconds": [[round(value, 1) for value in pair] for pair in pairs],
    }


def resume(path: Path, rounds: int) -> dict:
    """Compare a run that resumes in the middle of its second epoch with a new run."""
    new, resumed = [], []
    for turn in range(rounds):
        folder = path.parent / f"start-{turn}"
        folder.mkdir()
        os.link(path, folder / path.name)
        steps = -(-len(pd.read_csv(path)) // BATCH_SIZE)
        new.append(run_child("start", folder / path.name, str(time.time()), str(3 * steps // 2))["seconds"])
        resumed.append(run_child("start", folder / path.name, str(time.time()), "")["seconds"])
    return {
        "ratio": round(statistics.median(resumed) / statistics.median(new), 2),
        "seconds": {"fresh": round(statistics.median(new), 1), "resumed": round(statistics.median(resumed), 1)},
    }


def main(arguments: list[str]) -> int:
    """Measure and print; return 1 if --check is given and a bar is missed, else 0."""
    if arguments[:1] == ["child"]:
        _, kind, path, *more = arguments
        figures = CHILDREN[kind](Path(path), *more)
        if os.environ.get("LOCAL_RANK", "0") == "0":
            print(json.dumps(figures | {"memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
        return 0
    options = dict(argument.split("=") for argument in arguments if "=" in argument)
    rounds = int(options.get("rounds", 3))
    with tempfile.TemporaryDirectory() as folder:
        path = write_rows(Path(folder), int(options.get("rows", 800)))
        report = {
            "training": speed_and_memory(path, rounds),
            "processes": processes(path, rounds),
            "resume": resume(path, rounds),
        }
    ratios = {
        **{name: report["training"][name] for name in ("speed_default", "speed_grouped", "memory")},
        "resume": report["resume"]["ratio"],
    }
    missed = [
        f"{name}: {ratios[name]}, bar {bar}"
        for name, bar in BARS.items()
        if (ratios[name] < bar if name.startswith("speed") else ratios[name] > bar)
    ]
    print(json.dumps({**report, "bars": BARS, "missed": missed}, indent=2))
    return int("--check" in arguments and bool(missed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
