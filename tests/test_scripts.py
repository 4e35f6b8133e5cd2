"""The batch scripts: shellcheck, opening comments, the check of a login node, and the local cluster."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "slurm"
SCRIPTS = sorted([*FOLDER.glob("*.sbatch"), *FOLDER.glob("*.sh")])


def test_shellcheck_passes():
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck is not installed")
    done = subprocess.run(["shellcheck", "-x", *SCRIPTS], cwd=FOLDER.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("script", sorted(FOLDER.glob("*.sbatch")), ids=lambda path: path.name)
def test_a_batch_script_opens_with_its_sbatch_command(script):
    opening = script.read_text().split("#SBATCH")[0]
    assert re.search(rf"^# .*sbatch .*slurm/{script.name}", opening, re.MULTILINE) and "To adapt" in opening


def run_check(tmp_path, **settings):
    env = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "TCR_OUTPUT": str(tmp_path / "outputs")}
    return subprocess.run([FOLDER / "check.sh"], env={**env, **settings}, capture_output=True, text=True)


def test_the_check_names_what_is_missing(tmp_path):
    (tmp_path / "bin").mkdir()
    for tool in "awk bash cat compgen df dirname grep mkdir paste stat tail tr wc".split():
        if shutil.which(tool):
            (tmp_path / "bin" / tool).symlink_to(shutil.which(tool))
    done = run_check(tmp_path, PATH=str(tmp_path / "bin"), TCR_PYTHON="/no/python")
    missing = [line.split("  missing  ")[1] for line in done.stdout.splitlines() if "  missing  " in line]
    assert done.returncode == 1 and f"{len(missing)} missing" in done.stderr
    report = "\n".join(missing)
    assert all(word in report for word in ("sbatch", "srun", "SLURM's controller", "/no/python", "models in"))


def test_the_check_passes_if_nothing_is_missing(tmp_path):
    tools = {"sbatch": "", "srun": "", "scontrol": "", "sinfo": "echo main* gpu:a100:4", "python": "exit 0"}
    (tmp_path / "bin").mkdir()
    for name, body in tools.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "hub/models--owner--name").mkdir(parents=True)
    done = run_check(
        tmp_path,
        PATH=f"{tmp_path / 'bin'}:/usr/bin:/bin",
        TCR_PYTHON=str(tmp_path / "bin/python"),
        HF_HUB_CACHE=str(tmp_path / "hub"),
        WANDB_API_KEY="x",
    )
    assert done.returncode == 0 and "nothing is missing" in done.stdout and "partitions with GPUs: main*" in done.stdout


def test_the_local_cluster_does_not_delete_another_folder(tmp_path):
    if os.geteuid() or not shutil.which("slurmctld", path=f"{os.environ['PATH']}:/usr/sbin"):
        pytest.skip("no SLURM, or not root")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/thesis.tex").touch()
    for verb in ("start", "stop"):
        subprocess.run(
            [FOLDER / "local_cluster.sh", verb],
            env={**os.environ, "TCR_SLURM": str(tmp_path / "other")},
            capture_output=True,
        )
        assert (tmp_path / "other/thesis.tex").exists()
