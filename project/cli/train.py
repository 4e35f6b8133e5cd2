"""The verb `train`."""

from ..experiments.run_training import run as run
