"""The verb `predict`: answer for the rows of a file with a trained run."""

from pathlib import Path

from ..config.schema import Config
from ..errors import UserError
from ..inference.predict_file import predict


def run(config: Config, args: dict[str, str]) -> None:
    """Answer for the rows of `input`, and write them with their answers to `output`; print how many have no answer.

    Raises UserError if an argument is not given, or if a file as a whole is wrong.
    """
    for key in ("run", "input", "output"):
        if key not in args:
            raise UserError(
                f"predict: {key} is not given; python -m project predict run=<folder> input=rows.csv "
                "output=predictions.parquet"
            )
    source, output = Path(args["input"]).expanduser(), Path(args["output"]).expanduser()
    table = predict(config, Path(args["run"]), source, output)
    failed = int(table["problem"].notna().sum())
    print(f"{len(table)} rows{f', {failed} of them without an answer (see problem)' if failed else ''}: {output}")
