"""The verb `study`."""

from ..experiments.study import run as run
