"""The software and hardware of a run: package versions, git revision, processors."""

import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import torch

PACKAGES = ("torch", "lightning", "transformers", "peft", "omegaconf", "numpy", "pandas")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the PACKAGES."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def revision() -> str | None:
    """Return the git revision of the code, with + if there are uncommitted changes; None outside a checkout."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty=+"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip()


def hardware() -> str:
    """Return the GPUs, or else the number of CPU cores, in words."""
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    return f"{cores} {platform.machine()} cores, no GPU"
