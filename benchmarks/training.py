"""Training beside transformers' Trainer with peft: the same model, rows, batch size and steps, on the processor.

    python benchmarks/training.py [rows=800] [rounds=3] [--check]

Rows are made with the lengths of PetFinder descriptions, by the quantiles of an extract of 81 published rows (in
MiniLM's tokens: median 64, nine tenths under 156, one in forty over 256), cut at 256. Each side tokenizes and trains
one epoch in a process of its own; medians over the rounds, in which the order turns. Prints JSON:

- speed: samples/s over those of the Trainer, with its default padding (random batches, each padded to its longest
  text) and with train_sampling_strategy="group_by_length"; bars 1.5 and 1.0.
- memory: the highest resident set over the Trainer's, whichever sampling has less, in runs apart in which malloc gives
  freed blocks back (else it is what the heap has kept between batches of different lengths); bar 1.0.
- processes: samples/s of two processes (gloo) over twice those of one, one thread each; no bar.
- resume: seconds from the command to the first training step, one that goes on in mid-epoch over a fresh one; bar 1.2.
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

BARS = {"speed_default": 1.5, "speed_grouped": 1.0, "memory": 1.0, "resume": 1.2}
LENGTHS = {0: 2, 5: 6, 25: 28, 50: 62, 75: 92, 90: 154, 95: 195, 99: 332, 100: 450}
"""Percentiles of the descriptions' lengths, in tokens without the two special ones."""
WORDS = (
    "dog cat puppy kitten home love good play find food house cute white black brown small friendly young old "
    "active please call owner adopt rescued street mother month vaccinated healthy toilet trained"
).split()
BATCH, MAX_TOKENS = 16, 256


def made_rows(folder: Path, count: int) -> Path:
    """A CSV of texts with PetFinder's lengths; what is predicted is whether a text has more dogs than cats."""
    draw = np.random.default_rng(0)
    lengths = np.interp(draw.uniform(0, 100, count), list(LENGTHS), list(LENGTHS.values())).round().astype(int)
    texts = [" ".join(draw.choice(WORDS, length)) for length in lengths]
    kinds = ["dogs" if text.count("dog") > text.count("cat") else "cats" for text in texts]
    pd.DataFrame({"text": texts, "kind": kinds}).to_csv(folder / "rows.csv", index=False)
    return folder / "rows.csv"


def arguments(path: Path, *more: str) -> list[str]:
    """Ours, on the plain texts alone: one view, no language model."""
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
        f"trainer.batch_size={BATCH}",
        "trainer.epochs=1",
        "wandb.mode=disabled",
        f"store.path={path.parent / 'store'}",
        f"output={path.parent / 'outputs'}",
        *more,
    ]


def opened(path: Path, *more: str):
    """The configuration, its rows and the pipeline over them."""
    from project.config.compose import load_config
    from project.data.rows import read_rows
    from project.llm.factory import open_llm
    from project.pipeline.pipeline import open_pipeline

    config = load_config(arguments(path, *more))
    rows = read_rows(config.data)
    return config, rows, open_pipeline(config, rows, open_llm(config))


def ours(path: Path, *more: str) -> dict:
    """One epoch of this project's data module and module; under several processes, the first one's clock."""
    import lightning as L

    from project.training.datamodule import TextDataModule
    from project.training.encoder import load_tokenizer
    from project.training.module import RobustModule

    config, rows, pipeline = opened(path, *more)

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
    """One epoch of transformers' Trainer on the same rows, the same LoRA model and the same optimizer."""
    from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

    from project.training.encoder import base_model, load_tokenizer, lora_classifier

    config, rows, _ = opened(path)
    tokenizer, model = (
        load_tokenizer(config.model),
        lora_classifier(base_model(config.model, rows.target, 0), config.model),
    )
    options = TrainingArguments(
        output_dir=str(path.parent / "trainer"),
        num_train_epochs=1,
        per_device_train_batch_size=BATCH,
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


def first_step(path: Path, began: str, at: str) -> dict:
    """Seconds from `began` to the first training step of the command; with `at`, stops at that step and saves."""
    from project.cli import train
    from project.config.compose import load_config
    from project.runtime.signals import Interrupted
    from project.training.module import RobustModule

    steps, told = RobustModule.training_step, {}

    def training_step(module, batch, batch_idx):
        told.setdefault("seconds", time.time() - float(began))
        if module.global_step == int(at or module.global_step):
            os.kill(os.getpid(), signal.SIGUSR1)
        return steps(module, batch, batch_idx)

    RobustModule.training_step = training_step
    try:
        train.run(load_config(arguments(path, "trainer.epochs=3", "perturbation.weight=1")), {})
    except Interrupted:
        return told
    raise RuntimeError("the run was not broken off")


CHILDREN = {
    "ours": ours,
    "default": lambda path: rival(path, "random"),
    "grouped": lambda path: rival(path, "group_by_length"),
    "one": lambda path: ours(path),
    "two": lambda path: ours(path, "trainer.devices=2", "trainer.strategy=ddp"),
    "start": first_step,
}


def child(kind: str, path: Path, *more: str, **settings: str) -> dict:
    """What a process of its own measures, with its highest resident set in MB."""
    done = subprocess.run(
        [sys.executable, __file__, "child", kind, str(path), *more],
        capture_output=True,
        text=True,
        env=os.environ | settings,
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def speed_and_memory(path: Path, rounds: int) -> dict:
    """The three sides, alternated; medians."""
    sides = ["ours", "default", "grouped"]
    seen = [{side: child(side, path) for side in sides[turn % 3 :] + sides[: turn % 3]} for turn in range(rounds)]
    speeds = {side: [one[side]["samples"] / one[side]["seconds"] for one in seen] for side in sides}
    median = {
        side: {
            "samples_per_second": statistics.median(speeds[side]),
            "steps": seen[0][side]["steps"],
            "memory": child(side, path, MALLOC_MMAP_THRESHOLD_="65536")["memory"],
        }
        for side in sides
    }
    return {side: {name: round(value, 1) for name, value in told.items()} for side, told in median.items()} | {
        "speed_default": round(median["ours"]["samples_per_second"] / median["default"]["samples_per_second"], 2),
        "speed_grouped": round(median["ours"]["samples_per_second"] / median["grouped"]["samples_per_second"], 2),
        "memory": round(median["ours"]["memory"] / min(median[side]["memory"] for side in sides[1:]), 3),
    }


def processes(path: Path, rounds: int) -> dict:
    """Two processes over one, a thread each."""
    pairs = [[child(kind, path, OMP_NUM_THREADS="1")["seconds"] for kind in ("one", "two")] for _ in range(rounds)]
    return {
        "efficiency": round(statistics.median(one / (2 * two) for one, two in pairs), 2),
        "seconds": [[round(value, 1) for value in pair] for pair in pairs],
    }


def resume(path: Path, rounds: int) -> dict:
    """A run that goes on in the middle of its second epoch, over a fresh one."""
    fresh, again = [], []
    for turn in range(rounds):
        folder = path.parent / f"start-{turn}"
        folder.mkdir()
        os.link(path, folder / path.name)
        steps = -(-len(pd.read_csv(path)) // BATCH)
        fresh.append(child("start", folder / path.name, str(time.time()), str(3 * steps // 2))["seconds"])
        again.append(child("start", folder / path.name, str(time.time()), "")["seconds"])
    return {
        "ratio": round(statistics.median(again) / statistics.median(fresh), 2),
        "seconds": {"fresh": round(statistics.median(fresh), 1), "resumed": round(statistics.median(again), 1)},
    }


def main(arguments: list[str]) -> int:
    """Measure all; 1 where --check finds a missed bar."""
    if arguments[:1] == ["child"]:
        _, kind, path, *more = arguments
        told = CHILDREN[kind](Path(path), *more)
        if os.environ.get("LOCAL_RANK", "0") == "0":
            print(json.dumps(told | {"memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
        return 0
    given = dict(argument.split("=") for argument in arguments if "=" in argument)
    rounds = int(given.get("rounds", 3))
    with tempfile.TemporaryDirectory() as folder:
        path = made_rows(Path(folder), int(given.get("rows", 800)))
        report = {
            "training": speed_and_memory(path, rounds),
            "processes": processes(path, rounds),
            "resume": resume(path, rounds),
        }
    found = {
        **{name: report["training"][name] for name in ("speed_default", "speed_grouped", "memory")},
        "resume": report["resume"]["ratio"],
    }
    missed = [
        f"{name}: {found[name]}, bar {bar}"
        for name, bar in BARS.items()
        if (found[name] < bar if name.startswith("speed") else found[name] > bar)
    ]
    print(json.dumps({**report, "bars": BARS, "missed": missed}, indent=2))
    return int("--check" in arguments and bool(missed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
