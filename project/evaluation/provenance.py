"""What a run's numbers were made with: package versions, git revision, hardware."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import torch

PACKAGES = ("torch", "lightning", "transformers", "peft", "omegaconf", "numpy", "pandas")


def revision() -> str | None:
    """The git revision of the code, with + where it has uncommitted changes; None outside a checkout."""
    try:
        told = subprocess.run(
            ["git", "describe", "--always", "--dirty=+"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return told.stdout.strip()


def hardware() -> str:
    """What the run ran on, in words."""
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    return f"{cores} {platform.machine()} cores, no GPU"
