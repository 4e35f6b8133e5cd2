"""What needs a GPU: pytest -m gpu, on a machine with one; two of the tests need a second one."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from project.config.compose import load_config
from project.config.run_identity import run_folder

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU on this machine"),
]


@pytest.fixture
def trained(tiny_args, tmp_path):
    """Train by the command line into a folder of its own and return the folder."""

    def run(where, *more):
        args = [
            *(arg for arg in tiny_args if arg != "trainer=cpu"),
            "method=rules",
            "trainer.precision=32-true",
            f"output={tmp_path / where}",
            *more,
        ]
        done = subprocess.run([sys.executable, "-m", "project", "train", *args], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return run_folder(load_config(args))

    return run


def assert_equal_runs(first, second):
    """The scores on the validation rows and on the test rows are the same, but for rounding."""
    for folder in (first, second):
        assert (folder / "adapter/adapter_model.safetensors").is_file()
    scores = [json.loads((folder / "run.json").read_text())["val"]["last"] for folder in (first, second)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-3)
    values = [pd.read_parquet(folder / "results.parquet")["value"] for folder in (first, second)]
    assert values[0].to_numpy() == pytest.approx(values[1].to_numpy(), abs=1e-2, nan_ok=True)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_a_strategy_on_one_gpu_ends_as_no_strategy_does(trained, strategy):
    one = trained("one", "trainer.accelerator=gpu", "trainer.devices=1")
    assert_equal_runs(one, trained("other", f"trainer={strategy}", "trainer.precision=32-true", "trainer.devices=1"))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there are no two GPUs on this machine")
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_gpus_end_as_one_with_two_passes_does(trained, strategy):
    one = trained("one", "trainer.accelerator=gpu", "trainer.devices=1", "trainer.device_batch_size=4")
    assert_equal_runs(one, trained("two", f"trainer={strategy}", "trainer.precision=32-true", "trainer.devices=2"))


def test_every_section_of_the_gpu_benchmark_is_ok():
    script = Path(__file__).parent.parent / "benchmarks/gpu.py"
    done = subprocess.run([sys.executable, script, "--minutes", "12"], capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-4000:]}"
