"""The batch scripts on a real SLURM with two nodes: several nodes, pre-emption, requeue, arrays, the whole pipeline."""

import json
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from project.config.compose import load_config
from project.config.run_identity import run_folder
from project.errors import UserError
from project.experiments import run_training as train
from project.llm.engines.llamacpp import model_file
from project.llm.store.store import Store

pytestmark = pytest.mark.slurm
TWO = ("--nodes=2", "--ntasks-per-node=1", "slurm/train.sbatch")
SERVERS = Path(__file__).parent


@pytest.fixture
def args(tiny_args):
    """A run of six epochs of 15 steps for two nodes; each test gives it a folder of its own."""
    return [arg for arg in tiny_args if not arg.startswith(("output=", "wandb."))] + [
        "method=rules",
        "trainer.strategy=ddp",
        "trainer.batch_size=2",
        "trainer.lr=0.02",
        "trainer.patience=9",
        "trainer.epochs=6",
        "wandb.mode=offline",
    ]


def folder_of(args, output):
    return run_folder(load_config([*args, f"output={output}"]))


def told(folder):
    return json.loads((folder / "run.json").read_text())


def assert_equal_runs(one, other, tolerance=0.0):
    mine, its = (pd.read_parquet(folder / "predictions.parquet") for folder in (one, other))
    pd.testing.assert_frame_equal(mine.drop(columns="probabilities"), its.drop(columns="probabilities"))
    apart = np.abs(np.stack(mine["probabilities"]) - np.stack(its["probabilities"])).max()
    assert apart <= tolerance
    for key in ("steps", "epochs", "forward_samples"):
        assert told(one)[key] == told(other)[key], key
    assert told(one)["val"]["last"] == pytest.approx(told(other)["val"]["last"], abs=tolerance)


@pytest.fixture(scope="session")
def undisturbed():
    """The folder of an undisturbed run on two nodes, made once."""
    return {}


@pytest.fixture
def whole(cluster, args, undisturbed, tmp_path_factory):
    """The folder of the run on two nodes that nothing breaks off."""
    if not undisturbed:
        output = tmp_path_factory.mktemp("undisturbed")
        cluster.wait(cluster.submit(*TWO, *args, f"output={output}"))
        undisturbed["folder"] = folder_of(args, output)
    return undisturbed["folder"]


def test_two_nodes_give_what_one_process_gives(whole, args, tmp_path):
    config = load_config([*args, f"output={tmp_path / 'one'}", "trainer.device_batch_size=1", "trainer.strategy=auto"])
    train.run(config, {})
    assert (told(whole)["devices"], told(run_folder(config))["passes"]) == (2, 2)
    assert_equal_runs(run_folder(config), whole, tolerance=1e-4)


@pytest.fixture
def broken(cluster, args, whole):
    """Starts that run again; returns the job, its folder, its command, and a check that it ends as if undisturbed."""
    folder = folder_of(args, cluster.folder / "broken")
    command = [*TWO, *args, f"output={cluster.folder / 'broken'}"]
    job = cluster.submit(*command)
    cluster.until(job, (folder / "checkpoints/last.ckpt").is_file)  # of six

    def check(last):
        cluster.wait(last)
        assert_equal_runs(whole, folder)
        ids = {path.name.split("-")[-1] for path in (folder / "wandb").glob("offline-run-*")}
        assert len(ids) == 1 and len(list((folder / "wandb").glob("offline-run-*"))) >= 2

    return job, folder, command, check


def steps_saved(folder):
    return torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["global_step"]


def test_usr1_saves_at_a_step_requeues_and_one_run_goes_on(cluster, broken):
    job, folder, _, check = broken
    cluster.run("scancel", "--signal=USR1", job)
    cluster.until(job, lambda: "is queued again" in cluster.logs(job), 60)
    assert steps_saved(folder) % 15  # in mid-epoch
    check(job)
    assert cluster.states(job)[0]["Restarts"] == "1"


def test_a_pre_empted_run_makes_room_and_goes_on_by_itself(cluster, broken):
    job, _, _, check = broken
    urgent = cluster.submit("--partition=high", "--nodes=2", "--exclusive", "--wrap=true")
    cluster.wait(urgent, seconds=60)
    assert "was asked to stop, has saved" in cluster.logs(job)
    check(job)
    assert cluster.states(job)[0]["Restarts"] == "1"


def test_a_rank_that_is_killed_ends_the_job_and_the_next_goes_on(cluster, broken):
    job, folder, command, check = broken
    os.kill(process_of(job, rank=1), signal.SIGKILL)
    start = time.monotonic()
    cluster.wait(job, "FAILED", seconds=60)
    assert time.monotonic() - start < 60
    told = cluster.logs(job)
    assert "Killed" in told and f"error: job {job} failed with code" in told and "the same sbatch goes on" in told
    check(cluster.submit(*command))


def test_a_run_that_is_cancelled_stays_cancelled(cluster, broken):
    job, _, _, _ = broken
    cluster.run("scancel", job)
    cluster.wait(job, "CANCELLED", seconds=60)
    time.sleep(3)
    assert cluster.states(job)[0]["JobState"] == "CANCELLED"


def process_of(job, rank):
    """The number of the Python process that is that rank of the job."""
    for place in Path("/proc").iterdir():
        try:
            settings = (place / "environ").read_bytes().split(b"\0")
            command = (place / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if (
            f"SLURM_JOB_ID={job}".encode() in settings
            and f"SLURM_PROCID={rank}".encode() in settings
            and command[1:3] == [b"-m", b"project"]
        ):
            return int(place.name)
    raise AssertionError(f"no process of rank {rank}")


def test_an_array_of_seeds_makes_folders_that_never_mix(cluster, args, tmp_path):
    args = [*args, "trainer.epochs=1"]
    cluster.wait(cluster.submit("slurm/seeds.sbatch", *args, f"output={tmp_path / 'seeds'}"))
    folders = [folder_of([*args, f"seed={seed}"], tmp_path / "seeds") for seed in range(3)]
    assert all((folder / "results.parquet").is_file() for folder in folders) and len(set(folders)) == 3
    assert [set(pd.read_parquet(folder / "results.parquet")["seed"]) for folder in folders] == [{0}, {1}, {2}]
    weights = [torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"] for folder in folders]
    name = next(name for name in weights[0] if "lora_A" in name)
    assert not torch.equal(weights[0][name], weights[1][name])


def test_an_array_of_workers_shares_the_trials_of_a_sweep(cluster, tiny_args, tmp_path):
    path = tmp_path / "lr.yaml"
    path.write_text(
        "method: grid\nmetric: {name: val/best_score, goal: maximize}\n"
        "parameters:\n  trainer.lr: {values: [0.001, 0.002, 0.004, 0.008]}\n"
    )
    job = cluster.submit(
        "--array=0-1",
        "--cpus-per-task=1",
        "slurm/sweep.sbatch",
        str(path),
        *tiny_args,
        "method=plain",
        "trainer.epochs=1",
    )
    cluster.wait(job)
    table = pd.read_csv(tmp_path / "outputs/sweeps/lr/trials.csv")
    assert sorted(table["trainer.lr"]) == [0.001, 0.002, 0.004, 0.008] and set(table["state"]) == {"complete"}
    assert cluster.logs(job).count("val/best_score 0.") + cluster.logs(job).count("val/best_score 1.") >= 4


def test_an_array_of_shards_makes_the_keys_of_one_run(cluster, tiny_args, tmp_path):
    served = {
        "TCR_SERVER": str(tmp_path / "address"),
        "SERVER_HOST": "127.0.0.1",
        "LLM_COMMAND": f"{sys.executable} {SERVERS / 'echo_server.py'}",
    }
    server = cluster.submit("--cpus-per-task=1", "slurm/serve_llm.sbatch", **served)
    args = [*tiny_args, "method=ours", "llm=openai", "llm.model=echo", "data.limit=24", "store.takeover_seconds=30"]
    for array, store in ("0-3", "parts"), ("0", "whole"):
        cluster.wait(
            cluster.submit(
                f"--array={array}",
                "--cpus-per-task=1",
                "slurm/prepare.sbatch",
                *args,
                f"store.path={tmp_path / store}",
                **served,
            )
        )
    cluster.run("scancel", server)
    cluster.until(server, lambda: cluster.states(server)[0]["JobState"] != "RUNNING")
    keys = Store(tmp_path / "parts").keys()
    assert keys == Store(tmp_path / "whole").keys() and len(keys) > 50
    rows = Store(tmp_path / "parts").find(sorted(keys))
    assert len({row.writer for row in rows if row.model == "echo"}) == 4
    assert not (tmp_path / "address").exists()


def test_the_pipeline_runs_from_the_server_to_the_report(cluster, tmp_path):
    """On the demo's rows, with llama.cpp's server and SmolLM2 in vLLM's place."""
    pytest.importorskip("xllamacpp")
    try:
        model_file(load_config(["llm=smollm2"]).llm)
    except UserError as error:
        pytest.skip(str(error))
    args = [
        "experiment=demo",
        "debug=fast",
        "data.limit=6",
        "method=ours",
        "llm=vllm",
        "llm.model=smollm2-served",
        "llm.concurrency=2",
        "alignment.attempts=1",
        "perturbation.attempts=1",
        "store.recorded=null",
        f"output={tmp_path / 'outputs'}",
        f"store.path={tmp_path / 'store'}",
        "wandb.mode=offline",
    ]
    printed = cluster.run(
        "slurm/pipeline.sh",
        *args,
        GPUS="0",
        SHARDS="2",
        SEEDS="0-1",
        SERVER_HOST="127.0.0.1",
        LLM_COMMAND=f"{sys.executable} {SERVERS / 'llama_server.py'}",
    )
    jobs = dict(line.split() for line in printed.splitlines())
    assert list(jobs) == ["serve", "prepare", "stop-serving", "train", "evaluate", "report"]
    cluster.wait(jobs["report"], seconds=900)
    assert (tmp_path / "outputs/demo/report/index.html").is_file()
    runs = list((tmp_path / "outputs/demo").glob("*/seed-*"))
    assert sorted(run.name for run in runs) == ["seed-0", "seed-1"]
    for run in runs:
        info = told(run)
        assert info["llm"]["calls"] == 0 and info["llm"]["hits"] > 0 and info["seconds"].keys() == {"train", "evaluate"}
    assert cluster.states(jobs["serve"])[0]["JobState"] in ("CANCELLED", "COMPLETED", "COMPLETING")
