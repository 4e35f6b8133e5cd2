"""The verb `report`."""

from ..report.page import run as run
