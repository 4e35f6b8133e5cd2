"""What needs GPUs: pytest -m gpu, on a node with two of them."""

import json
import subprocess
import sys

import pandas as pd
import pytest
import torch

from project.config.compose import load_config
from project.config.run_identity import run_folder

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there are no two GPUs on this machine"),
]


@pytest.fixture
def trained(tiny_args, tmp_path):
    """Trains by the command line into a folder of its own and returns the folder."""

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


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_gpus_end_as_one_with_two_passes_does(trained, strategy):
    one = trained("one", "trainer.accelerator=gpu", "trainer.devices=1", "trainer.device_batch_size=4")
    two = trained("two", f"trainer={strategy}", "trainer.precision=32-true", "trainer.devices=2")
    for folder in (one, two):
        assert (folder / "adapter/adapter_model.safetensors").is_file()
    told = [json.loads((folder / "run.json").read_text()) for folder in (one, two)]
    assert told[0]["val"]["last"] == pytest.approx(told[1]["val"]["last"], abs=1e-3)
    values = [pd.read_parquet(folder / "results.parquet")["value"] for folder in (one, two)]
    assert values[0].to_numpy() == pytest.approx(values[1].to_numpy(), abs=1e-2, nan_ok=True)
