"""The verb `evaluate`."""

from ..evaluation.evaluate_run import run as run
