"""A real SLURM with two nodes on this machine, started by slurm/local_cluster.sh for the tests of this folder."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
DAEMONS = ("slurmctld", "slurmd", "munged", "mungekey")


class Cluster:
    """Submits the scripts of slurm/ from a folder of its own, and looks at what becomes of them."""

    def __init__(self, folder: Path, conf: str):
        self.folder, self.hastened = folder, set()
        (folder / "slurm").symlink_to(ROOT / "slurm")
        # A W&B service that this process has started would take the runs of the jobs for its own.
        ours = ("SLURM_", "SBATCH_", "TCR_", "WANDB_")
        outside = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
        self.env = {
            **outside,
            "SLURM_CONF": conf,
            "MASTER_ADDR": "127.0.0.1",
            "TCR_PYTHON": sys.executable,
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "COLUMNS": "200",
        }

    def run(self, *command, **more):
        done = subprocess.run(command, cwd=self.folder, env={**self.env, **more}, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    def submit(self, *command, **more) -> str:
        """The number of the job. Lightning makes the port of its number, so that two clusters may share a machine."""
        return self.run("sbatch", "--parsable", *command, **more)

    def states(self, job: str) -> list[dict]:
        """What SLURM knows of a job, or of each task of an array.

        A requeued one is spared most of its pause of two minutes: its nodes must have ended what they did.
        """
        told = self.run("scontrol", "--oneliner", "show", "job", job).splitlines()
        tasks = [dict(re.findall(r"(\S+?)=(\S*)", line)) for line in told]
        for task in tasks:
            requeued = task["JobId"], task["Restarts"]
            if task["Reason"] == "BeginTime" and requeued not in self.hastened:
                self.hastened.add(requeued)
                self.run("scontrol", "update", f"JobId={task['JobId']}", "StartTime=now+5")
        return tasks

    def wait(self, job: str, state: str = "COMPLETED", seconds: float = 300) -> None:
        """Until every task of the job is in that state; fails where one ends in another."""
        deadline, ended = time.monotonic() + seconds, 0
        while (found := {task["JobState"] for task in self.states(job)}) != {state}:
            # A job that is being queued again is seen as failed for a moment.
            ended = ended + 1 if found & {"FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "COMPLETED"} - {state} else 0
            assert ended < 10, f"{found}\n{self.logs(job)}"
            assert time.monotonic() < deadline, f"{found}\n{self.run('squeue')}\n{self.logs(job)}"
            time.sleep(0.3)

    def logs(self, job: str) -> str:
        """All that a job has printed."""
        return "\n".join(path.read_text() for path in sorted(self.folder.glob(f"*-{job}*.out")))

    def until(self, job: str, condition, seconds: float = 200):
        """What `condition` returns, once it is true, while the job lives."""
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            told = {task["JobState"] for task in self.states(job)}
            assert told <= {"PENDING", "RUNNING", "CONFIGURING", "COMPLETING"}, f"{told}\n{self.logs(job)}"
            assert time.monotonic() < deadline, self.logs(job)
            time.sleep(0.05)
        return found


@pytest.fixture(scope="session")
def controller(tmp_path_factory):
    """The cluster's configuration file, while it runs."""
    lacking = [tool for tool in DAEMONS if not shutil.which(tool, path=f"{os.environ['PATH']}:/usr/sbin")]
    if lacking:
        pytest.skip(f"no SLURM: {', '.join(lacking)} missing; apt-get install slurmctld slurmd slurm-client munge")
    if os.geteuid():
        pytest.skip("SLURM's daemons are started by root")
    folder = Path("/tmp") / f"tcr-slurm-{os.getpid()}"  # a socket's path must be short
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(min(free.getsockname()[1], 65000))
    env = {**os.environ, "TCR_SLURM": str(folder), "TCR_SLURM_PORT": port}
    started = subprocess.run([ROOT / "slurm/local_cluster.sh", "start"], env=env, stdout=subprocess.PIPE, text=True)
    assert started.returncode == 0
    yield started.stdout.split("SLURM_CONF=")[1].split()[0]
    subprocess.run([ROOT / "slurm/local_cluster.sh", "stop"], env=env, check=True)


@pytest.fixture
def cluster(controller, tmp_path):
    """A cluster on which nothing is left over from another test."""
    made = Cluster(tmp_path, controller)
    yield made
    subprocess.run(["scancel", "--full", "--user=root"], env=made.env, check=False)
    while subprocess.run(["squeue", "-h"], env=made.env, capture_output=True, text=True).stdout.strip():
        time.sleep(0.3)
