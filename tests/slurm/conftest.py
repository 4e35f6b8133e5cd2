"""A real SLURM with two nodes on this machine, started by slurm/local_cluster.sh."""

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
    """Submit the scripts of slurm/ from a separate folder and read the state and logs of the jobs."""

    def __init__(self, folder: Path, conf: str):
        self.folder, self.released = folder, set()
        (folder / "slurm").symlink_to(ROOT / "slurm")
        # Jobs must not use the W&B service of this process.
        removed = ("SLURM_", "SBATCH_", "TCR_", "WANDB_")
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(removed)}
        self.env = {
            **inherited,
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
        """Return the id of the job. Lightning derives its port from it, so that two clusters can share a machine."""
        return self.run("sbatch", "--parsable", *command, **more)

    def states(self, job: str) -> list[dict]:
        """Return SLURM's fields of a job, or of each task of an array.

        It shortens the two-minute pause of a requeued job to 5 s, the time for its nodes to end the first run.
        """
        lines = self.run("scontrol", "--oneliner", "show", "job", job).splitlines()
        tasks = [dict(re.findall(r"(\S+?)=(\S*)", line)) for line in lines]
        for task in tasks:
            requeued = task["JobId"], task["Restarts"]
            if task["Reason"] == "BeginTime" and requeued not in self.released:
                self.released.add(requeued)
                self.run("scontrol", "update", f"JobId={task['JobId']}", "StartTime=now+5")
        return tasks

    def wait(self, job: str, state: str = "COMPLETED", seconds: float = 300) -> None:
        """Wait until every task of the job is in that state; fail if one ends in another."""
        deadline, ended = time.monotonic() + seconds, 0
        while (states := {task["JobState"] for task in self.states(job)}) != {state}:
            # A job that is being requeued appears as failed for a moment.
            ended = ended + 1 if states & {"FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "COMPLETED"} - {state} else 0
            assert ended < 10, f"{states}\n{self.logs(job)}"
            assert time.monotonic() < deadline, f"{states}\n{self.run('squeue')}\n{self.logs(job)}"
            time.sleep(0.3)

    def logs(self, job: str) -> str:
        """Return the output of a job."""
        return "\n".join(path.read_text() for path in sorted(self.folder.glob(f"*-{job}*.out")))

    def until(self, job: str, condition, seconds: float = 200):
        """Wait until `condition()` is true and return its value; fail if the job ends first."""
        deadline = time.monotonic() + seconds
        while not (value := condition()):
            states = {task["JobState"] for task in self.states(job)}
            assert states <= {"PENDING", "RUNNING", "CONFIGURING", "COMPLETING"}, f"{states}\n{self.logs(job)}"
            assert time.monotonic() < deadline, self.logs(job)
            time.sleep(0.05)
        return value


@pytest.fixture(scope="session")
def controller(tmp_path_factory):
    """The configuration file of a running cluster."""
    missing = [tool for tool in DAEMONS if not shutil.which(tool, path=f"{os.environ['PATH']}:/usr/sbin")]
    if missing:
        pytest.skip(f"no SLURM: {', '.join(missing)} missing; apt-get install slurmctld slurmd slurm-client munge")
    if os.geteuid():
        pytest.skip("SLURM's daemons need root")
    folder = Path("/tmp") / f"tcr-slurm-{os.getpid()}"  # the path of a socket must be short
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
    """A cluster without jobs; the jobs of a test are cancelled at its end."""
    cluster = Cluster(tmp_path, controller)
    yield cluster
    subprocess.run(["scancel", "--full", "--user=root"], env=cluster.env, check=False)
    while subprocess.run(["squeue", "-h"], env=cluster.env, capture_output=True, text=True).stdout.strip():
        time.sleep(0.3)
