"""The verb `sweep`."""

from ..experiments.sweep import run as run
