"""The paths that need a GPU, on one GPU, in minutes: training, evaluation, language models, captioners.

    python benchmarks/gpu.py [--check] [--small] [--minutes 8] [--sections half_precision_checkpoints,throughput]

Needs the packages of setup.cfg except wandb and optuna, and in addition accelerate and pytest; no network and no
downloaded weights: rows and tokenizers are generated, and models have their true classes with random weights. Prints
one line of JSON for the device, one for each section, and one for the bars. Each section runs in a process of its own
with its own time limit; a section that would start after --minutes is reported as not run.

- half_precision_checkpoints: checkpoints saved in float16 and bfloat16 are loaded and trained for 25 steps, also with a
  frozen base in bfloat16; every loss is finite and every trainable weight is float32.
- command_line: `python -m project train` in bf16-mixed, plain, with DDP and with FSDP, the last two on one device.
- throughput: training steps at real widths, 128 tokens for each sample. `share` is the FLOPs of the step's matrix
  products and attention over what an 8192 x 8192 x 8192 product in bfloat16 reaches on the same card.
- transformers_engine: texts of a padded batch against those of single prompts, and a batch that exceeds the memory.
- captioners: each captioner class of tests/experts/test_captioner.py writes captions.
- compile: a training step of ModernBERT with torch.compile(dynamic=True) over a plain one; no bar.

Exits 1 if a section fails, and with --check if a bar is missed. --small takes tiny models on the processor: it tests
this script, and its figures mean nothing.
"""

import argparse
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BARS = {"bf16_over_float32": 2.0, "ddp_over_one_device": 0.95, "memory_over_trainer": 1.05}
SECTIONS = {
    "half_precision_checkpoints": ("gpu_training", 120),
    "command_line": ("gpu_commands", 150),
    "throughput": ("gpu_training", 200),
    "transformers_engine": ("gpu_commands", 90),
    "captioners": ("gpu_commands", 120),
    "compile": ("gpu_training", 150),
}
"""The module of each section, and the seconds that it may take."""


class Figures(dict):
    """Figures of a section; each assignment is written to the file, so that a time limit loses none."""

    def __init__(self, path: Path):
        super().__init__()
        self._path = path

    def __setitem__(self, name: str, value) -> None:
        super().__setitem__(name, value)
        self._path.write_text(json.dumps(self))


def run_section(name: str, path: Path) -> int:
    """Run one section in this process; 1 if it fails."""
    sys.path.insert(0, str(ROOT))
    figures = Figures(path)
    with tempfile.TemporaryDirectory() as folder:
        try:
            getattr(importlib.import_module(SECTIONS[name][0]), name)(Path(folder), figures)
        except Exception as error:
            traceback.print_exc()
            figures["error"] = f"{type(error).__name__}: {error}".splitlines()[0][:500]
            return 1
    return 0


def section_line(name: str, limit: float) -> dict:
    """Run one section in a process of its own; its figures, with `ok` and seconds."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "figures.json"
        process = subprocess.Popen(
            [sys.executable, __file__, "--child", name, str(path)], stdout=sys.stderr, start_new_session=True
        )
        try:
            code, late = process.wait(limit), {}
        except subprocess.TimeoutExpired:
            code, late = None, {"error": f"not finished after {limit:.0f} s"}
            os.killpg(process.pid, signal.SIGKILL)  # with the processes that it started
            process.wait()
        figures = json.loads(path.read_text()) if path.is_file() else {}
    if code and "error" not in figures:
        late = {"error": f"exit code {code}"}
    return {"section": name, "ok": code == 0, **figures, **late, "seconds": round(time.monotonic() - start, 1)}


def main(arguments: list[str]) -> int:
    """Run the sections; 1 if one fails, or if --check finds a missed bar."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--sections", default=",".join(SECTIONS))
    options = parser.parse_args(arguments)
    if options.child:
        return run_section(options.child[0], Path(options.child[1]))
    os.environ |= {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    if options.small:
        os.environ |= {"GPU_BENCHMARK_SMALL": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    start, lines = time.monotonic(), []
    print(json.dumps(versions()), flush=True)
    for name in options.sections.split(","):
        left = 60 * options.minutes - (time.monotonic() - start)
        if left > 0:
            lines.append(section_line(name, min(SECTIONS[name][1] * (4 if options.small else 1), left)))
        else:
            lines.append({"section": name, "ok": False, "error": f"not run: {options.minutes} minutes are over"})
        print(json.dumps(lines[-1]), flush=True)
    figures = {name: line[name] for line in lines for name in BARS if line.get(name) is not None}
    missed = [
        f"{name}: {value}, bar {BARS[name]}"
        for name, value in figures.items()
        if (value > BARS[name] if name.startswith("memory") else value < BARS[name])
    ]
    bars = {"bars": BARS, "missed": missed, "seconds": round(time.monotonic() - start, 1)}
    print(json.dumps(bars), flush=True)
    return int(not all(line["ok"] for line in lines) or (options.check and bool(missed)))


def versions() -> dict:
    """The device, and the versions of what runs on it."""
    from importlib.metadata import version

    import torch

    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return {"device": name} | {package: version(package) for package in ("torch", "transformers", "lightning", "peft")}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
