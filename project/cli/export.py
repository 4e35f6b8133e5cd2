"""The verb `export`: write the transformer of a run for transformers or peft."""

from pathlib import Path

from ..config.compose import parse_bool
from ..config.schema import Config
from ..errors import UserError
from ..inference.export import export


def run(config: Config, args: dict[str, str]) -> None:
    """Export the run in the folder `run` to `output`. Raises UserError if one of them is not given."""
    for key in ("run", "output"):
        if key not in args:
            raise UserError(f"export: {key} is not given; python -m project export run=<folder> output=<folder>")
    output = export(config, Path(args["run"]), Path(args["output"]).expanduser(), parse_bool(args, "adapter", False))
    print(f"exported {args['run']} to {output}")
