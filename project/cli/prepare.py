"""The verb `prepare`."""

from ..experiments.prepare import run as run
