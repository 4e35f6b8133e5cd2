"""The verb `evaluate`: evaluate a trained run."""

from pathlib import Path

from ..config.schema import Config
from ..evaluation.evaluate_run import evaluate


def run(config: Config, args: dict[str, str]) -> None:
    """Evaluate the run in the folder `run`, or the configuration's; print the run folder."""
    _, paths = evaluate(config, Path(args["run"]) if "run" in args else None)
    print(f"evaluated {paths['folder']}")
