"""The verb `report`: compare finished runs on one page."""

from rich.console import Console

from ..config.compose import parse_bool
from ..config.schema import Config
from ..report.page import report


def run(config: Config, args: dict) -> None:
    """Write the report of the runs in `words`, or of the experiment's runs; print the tables and the paths."""
    report(config, args.get("words", []), parse_bool(args, "log", False), Console())
