"""The verb `export`."""

from ..inference.export import run as run
