"""The verb `train`: train a run, then evaluate it."""

from ..config.compose import parse_bool
from ..config.schema import Config
from ..experiments.run_training import train


def run(config: Config, args: dict[str, str]) -> None:
    """Train and evaluate the run; with evaluate=false only train it. Print the run folder."""
    evaluate = parse_bool(args, "evaluate", True)
    _, paths = train(config, evaluate)
    if paths and evaluate:
        print(f"finished {paths['folder']}")
    elif paths:
        print(f"trained {paths['folder']}; evaluate it: python -m project evaluate run={paths['folder']}")
