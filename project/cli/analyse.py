"""The verb `analyse`: measure the logged texts of finished runs."""

from ..analysis.analyse import analyse
from ..config.schema import Config


def run(config: Config, args: dict) -> None:
    """Measure the texts of the runs in `words`, or of the experiment's runs; print the path of each table."""
    for path, rows in analyse(config, args.get("words", [])).items():
        print(f"{rows:>6} rows in {path}")
