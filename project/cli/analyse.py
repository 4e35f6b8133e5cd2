"""The verb `analyse`."""

from ..analysis.analyse import run as run
