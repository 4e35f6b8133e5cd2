"""The verb `predict`."""

from ..inference.trained_run import run as run
