"""The batch scripts on a real SLURM with two nodes: multi-node runs, preemption, requeue, arrays, the pipeline."""

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

from project.cli import train
from project.config.compose import load_config
from project.config.run_identity import run_folder
from project.errors import UserError
from project.llm.engines.llamacpp import model_file
from project.llm.store.store import Store

pytestmark = pytest.mark.slurm
TWO_NODES = ("--nodes=2", "--ntasks-per-node=1", "slurm/train.sbatch")
SERVERS = Path(__file__).parent


@pytest.fixture
def args(tiny_args):
    """The arguments of a run of six epochs of 15 steps on two nodes; each test adds its own folder."""
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


def run_info(folder):
    return json.loads((folder / "run.json").read_text())


def assert_equal_runs(one, other, tolerance=0.0):
    first, second = (pd.read_parquet(folder / "predictions.parquet") for folder in (one, other))
    pd.testing.assert_frame_equal(first.drop(columns="probabilities"), second.drop(columns="probabilities"))
    difference = np.abs(np.stack(first["probabilities"]) - np.stack(second["probabilities"])).max()
    assert difference <= tolerance
    for key in ("steps", "epochs", "forward_samples"):
        assert run_info(one)[key] == run_info(other)[key], key
    assert run_info(one)["val"]["last"] == pytest.approx(run_info(other)["val"]["last"], abs=tolerance)


@pytest.fixture(scope="session")
def uninterrupted():
    """Cache of the folder of an uninterrupted run on two nodes."""
    return {}


@pytest.fixture
def reference(cluster, args, uninterrupted, tmp_path_factory):
    """The folder of an uninterrupted run on two nodes."""
    if not uninterrupted:
        output = tmp_path_factory.mktemp("uninterrupted")
        cluster.wait(cluster.submit(*TWO_NODES, *args, f"output={output}"))
        uninterrupted["folder"] = folder_of(args, output)
    return uninterrupted["folder"]


def test_two_nodes_give_the_results_of_one_process(reference, args, tmp_path):
    config = load_config([*args, f"output={tmp_path / 'one'}", "trainer.device_batch_size=1", "trainer.strategy=auto"])
    train.run(config, {})
    assert (run_info(reference)["devices"], run_info(run_folder(config))["passes"]) == (2, 2)
    assert_equal_runs(run_folder(config), reference, tolerance=1e-4)


@pytest.fixture
def running(cluster, args, reference):
    """Start that run again; return job, folder, command and a check that it ends like the uninterrupted run."""
    folder = folder_of(args, cluster.folder / "interrupted")
    command = [*TWO_NODES, *args, f"output={cluster.folder / 'interrupted'}"]
    job = cluster.submit(*command)
    cluster.until(job, (folder / "checkpoints/last.ckpt").is_file)  # of six

    def check(last):
        cluster.wait(last)
        assert_equal_runs(reference, folder)
        ids = {path.name.split("-")[-1] for path in (folder / "wandb").glob("offline-run-*")}
        assert len(ids) == 1 and len(list((folder / "wandb").glob("offline-run-*"))) >= 2

    return job, folder, command, check


def saved_step(folder):
    return torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["global_step"]


def test_usr1_saves_mid_epoch_requeues_and_resumes_one_run(cluster, running):
    job, folder, _, check = running
    cluster.run("scancel", "--signal=USR1", job)
    cluster.until(job, lambda: "is requeued" in cluster.logs(job), 60)
    assert saved_step(folder) % 15  # mid-epoch
    check(job)
    assert cluster.states(job)[0]["Restarts"] == "1"


def test_a_preempted_run_saves_is_requeued_and_resumes(cluster, running):
    job, _, _, check = running
    urgent = cluster.submit("--partition=high", "--nodes=2", "--exclusive", "--wrap=true")
    cluster.wait(urgent, seconds=60)
    assert "saved its state on a stop request" in cluster.logs(job)
    check(job)
    assert cluster.states(job)[0]["Restarts"] == "1"


def test_a_killed_rank_ends_the_job_and_the_next_job_resumes(cluster, running):
    job, folder, command, check = running
    os.kill(process_of(job, rank=1), signal.SIGKILL)
    start = time.monotonic()
    cluster.wait(job, "FAILED", seconds=60)
    assert time.monotonic() - start < 60
    log = cluster.logs(job)
    assert "Killed" in log and f"error: job {job} failed with code" in log and "Run the same sbatch to resume" in log
    check(cluster.submit(*command))


def test_a_cancelled_run_is_not_requeued(cluster, running):
    job, _, _, _ = running
    cluster.run("scancel", job)
    cluster.wait(job, "CANCELLED", seconds=60)
    time.sleep(3)
    assert cluster.states(job)[0]["JobState"] == "CANCELLED"


def process_of(job, rank):
    """Return the pid of the Python process of a rank."""
    for folder in Path("/proc").iterdir():
        try:
            environ = (folder / "environ").read_bytes().split(b"\0")
            command = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if (
            f"SLURM_JOB_ID={job}".encode() in environ
            and f"SLURM_PROCID={rank}".encode() in environ
            and command[1:3] == [b"-m", b"project"]
        ):
            return int(folder.name)
    raise AssertionError(f"no process of rank {rank}")


def test_an_array_of_seeds_trains_separate_runs(cluster, args, tmp_path):
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


def test_an_array_of_shards_generates_the_keys_of_one_job(cluster, tiny_args, tmp_path):
    server_env = {
        "TCR_SERVER": str(tmp_path / "address"),
        "SERVER_HOST": "127.0.0.1",
        "LLM_COMMAND": f"{sys.executable} {SERVERS / 'echo_server.py'}",
    }
    server = cluster.submit("--cpus-per-task=1", "slurm/serve_llm.sbatch", **server_env)
    args = [*tiny_args, "method=ours", "llm=openai", "llm.model=echo", "data.limit=24", "store.takeover_seconds=30"]
    for array, store in ("0-3", "sharded"), ("0", "single"):
        cluster.wait(
            cluster.submit(
                f"--array={array}",
                "--cpus-per-task=1",
                "slurm/prepare.sbatch",
                *args,
                f"store.path={tmp_path / store}",
                **server_env,
            )
        )
    cluster.run("scancel", server)
    cluster.until(server, lambda: cluster.states(server)[0]["JobState"] != "RUNNING")
    keys = Store(tmp_path / "sharded").keys()
    assert keys == Store(tmp_path / "single").keys() and len(keys) > 50
    rows = Store(tmp_path / "sharded").find(sorted(keys))
    assert len({row.writer for row in rows if row.model == "echo"}) == 4
    assert not (tmp_path / "address").exists()


def test_the_pipeline_runs_from_the_server_to_the_report(cluster, tmp_path):
    """On rows of the demo, with llama.cpp's server and SmolLM2 in place of vLLM."""
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
    output = cluster.run(
        "slurm/pipeline.sh",
        *args,
        GPUS="0",
        SHARDS="2",
        SEEDS="0-1",
        SERVER_HOST="127.0.0.1",
        LLM_COMMAND=f"{sys.executable} {SERVERS / 'llama_server.py'}",
    )
    jobs = dict(line.split() for line in output.splitlines())
    assert list(jobs) == ["serve", "prepare", "stop-serving", "train", "evaluate", "report"]
    cluster.wait(jobs["report"], seconds=900)
    assert (tmp_path / "outputs/demo/report/index.html").is_file()
    runs = list((tmp_path / "outputs/demo").glob("*/seed-*"))
    assert sorted(run.name for run in runs) == ["seed-0", "seed-1"]
    for run in runs:
        info = run_info(run)
        assert info["llm"]["calls"] == 0 and info["llm"]["hits"] > 0 and info["seconds"].keys() == {"train", "evaluate"}
    assert cluster.states(jobs["serve"])[0]["JobState"] in ("CANCELLED", "COMPLETED", "COMPLETING")
