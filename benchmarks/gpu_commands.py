"""The sections of gpu.py that run the command line, a language model and captioners."""

import contextlib
import importlib.util
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from gpu_models import DEVICE, SMALL, WORDS, saved_model

from project.config.schema import ExpertsConfig, HFTransformersConfig
from project.experts.captioner import caption_images
from project.llm.engines.hf_transformers import TransformersEngine
from project.llm.protocol import Request

ROOT = Path(__file__).resolve().parent.parent


def command_line(folder: Path, figures: dict) -> None:
    """Run the verb train, from a CSV to results.parquet, with each strategy; all at once."""
    draw = np.random.default_rng(0)
    kinds = {"apple": "red", "plum": "blue", "pear": "green"}
    rows = [
        {"title": f"a {kinds[kind]} thing {' '.join(draw.choice(WORDS, 20))}", "price": index % 9, "kind": kind}
        for index, kind in enumerate(draw.choice(list(kinds), 96))
    ]
    pd.DataFrame(rows).to_csv(folder / "rows.csv", index=False)
    encoder = saved_model(folder / "encoder", "bert", tiny=True)
    arguments = [
        "data=table",
        f"data.path={folder / 'rows.csv'}",
        "data.text=[title]",
        "data.table=[price]",
        "data.target=kind",
        "method=rules",
        f"model.encoder={encoder}",
        "model.max_tokens=48",
        f"trainer.accelerator={'cpu' if SMALL else 'gpu'}",
        "trainer.devices=1",
        "trainer.precision=bf16-mixed",
        "trainer.epochs=3",
        "trainer.batch_size=8",
        "robustness.levels=[0.5]",
        "robustness.missing=single",
        "robustness.orders=1",
        "robustness.resamples=50",
        "wandb.mode=disabled",
        "name=run",
    ]

    def one(strategy: str) -> str:
        own = [
            f"trainer.strategy={strategy}",
            f"output={folder / strategy}",
            f"store.path={folder / strategy}-store",
        ]
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "project", "train", *arguments, *own], cwd=ROOT, capture_output=True, text=True
        )
        figures[strategy] = {"exit_code": done.returncode, "seconds": round(time.perf_counter() - start, 1)}
        run = folder / strategy / "default/run/seed-0"
        if done.returncode or not (run / "results.parquet").is_file():
            return f"{strategy}: exit code {done.returncode}\n{done.stderr[-4000:]}"
        results, information = pd.read_parquet(run / "results.parquet"), json.loads((run / "run.json").read_text())
        clean = results[(results["condition"] == "clean") & (results["metric"] == "accuracy")]["value"]
        figures[strategy] |= {"conditions": results["condition"].nunique(), "clean_accuracy": float(clean.iloc[0])}
        figures[strategy] |= {"hardware": information["hardware"], "validation": information["val"]["last"]}
        scores = [*clean, *information["val"]["last"].values()]
        return "" if len(clean) and np.isfinite(scores).all() else f"{strategy}: scores {scores}"

    strategies = ["auto", "ddp"] if SMALL else ["auto", "ddp", "fsdp"]  # FSDP needs a GPU
    with ThreadPoolExecutor(len(strategies)) as pool:
        problems = [problem for problem in pool.map(one, strategies) if problem]
    if problems:
        raise AssertionError("\n".join(problems))


def transformers_engine(folder: Path, figures: dict) -> None:
    """Texts of padded batches, and a batch that exceeds the memory."""
    width = {} if SMALL else {"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 8, "head_dim": 64}
    place = saved_model(folder / "decoder", "qwen3-0.6b", tiny=True, task="AutoModelForCausalLM", **width)
    draw, new, count = np.random.default_rng(0), 8 if SMALL else 32, 8 if SMALL else 64
    words = [f"w{number}" for number in range(200)]
    requests = [
        Request("perturb", (("user", " ".join(draw.choice(words, draw.integers(20, 200)))),), 0.0, new)
        for _ in range(count)
    ]

    def engine(dtype: str):
        return TransformersEngine(
            HFTransformersConfig(model="m", path=str(place), dtype=dtype, device_map=DEVICE, batch_size=count)
        )

    def texts(engine, some) -> list[str]:
        answers = dict(engine.generate(some, [0] * len(some)))
        return [answers[index].text for index in range(len(some))]

    engines = {dtype: engine(dtype) for dtype in ("float32", "bfloat16")}
    for dtype, one in engines.items():
        batch, single = texts(one, requests), [texts(one, [request])[0] for request in requests[:8]]
        equal = sum(first == second for first, second in zip(batch, single, strict=False)) / len(single)
        figures[dtype] = {"equal_to_single": round(equal, 3), "distinct": len(set(batch))}
        start = time.perf_counter()
        written = sum(answer.completion_tokens for _, answer in one.generate(requests, [0] * count))
        figures[dtype]["tokens_per_second"] = round(written / (time.perf_counter() - start), 1)
        if dtype == "float32":
            exact, whole = equal, batch
    halving = engines["float32"]
    with limited_memory(halving, lambda: texts(halving, requests)):
        halved = texts(halving, requests)
    figures["after_out_of_memory"] = {"batch_size": halving._batch_size, "from": count, "equal": halved == whole}
    torch.cuda.empty_cache()  # does nothing on the processor
    if exact < 1:
        raise AssertionError(f"in float32 {exact:.0%} of the texts of a padded batch equal those of single prompts")
    if halving._batch_size >= count or halved != whole:
        raise AssertionError(f"after out of memory: {figures['after_out_of_memory']}")


@contextlib.contextmanager
def limited_memory(engine, generate):
    """Let the GPU have less memory than `generate` takes for a whole batch; on the processor, raise the error."""
    if SMALL:
        inner = engine._model.generate

        def limited(input_ids, **more):
            if len(input_ids) > 4:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return inner(input_ids=input_ids, **more)

        engine._model.generate = limited
        yield
        return
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    generate()
    limit = before + 0.6 * (torch.cuda.max_memory_allocated() - before)
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(limit / torch.cuda.get_device_properties(0).total_memory)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def captioners(folder: Path, figures: dict) -> None:
    """Captions by tiny models of each captioner class, in float32 and in the default type."""
    place = ROOT / "tests/experts/test_captioner.py"
    spec = importlib.util.spec_from_file_location("captioner_models", place)
    models = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(models)
    for build, prompt in models.PROMPTS.items():
        torch.manual_seed(0)
        model, parts = build()
        for name, weight in model.named_parameters():
            if weight.ndim > 1:  # so large that captions depend on the image
                torch.nn.init.normal_(weight, std=0.1 if "embed" in name or "wte" in name else 0.4)
        for part in (model, *parts):
            part.save_pretrained(folder / build.__name__)
        options = {"captioner": str(folder / build.__name__), "prompt": prompt, "caption_tokens": 8}
        found = {}
        for dtype in ("float32", ExpertsConfig().dtype):
            config = ExpertsConfig(**options, dtype=dtype, device_map=DEVICE, batch_size=2)
            captions = caption_images(models.pictures(), config)
            found[dtype] = {"captions": len(captions), "distinct": len(set(captions))}
            figures[build.__name__] = found
            if len(captions) != 5 or len(set(captions)) < 2:
                raise AssertionError(f"{build.__name__} in {dtype}: {captions}")
