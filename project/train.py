"""train: fit a run, then evaluate it and write its results."""

import json
from pathlib import Path

import lightning as L
import yaml
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console

from . import tracking
from .config import flag, require, to_dict, to_yaml
from .errors import UserError
from .evaluate import evaluate_run
from .interruption import Interrupted
from .llm import open_llm
from .llm.ask import Usage
from .methods import method_of
from .pipeline import open_pipeline
from .run_folder import differences, run_folder
from .schema import Config
from .sources import read_rows
from .sources.card import card
from .sources.columns import inferred
from .sources.copies import near_copies
from .written import write_text

FINISHED = "results.parquet"
"""The last file that a run writes."""
FITTED = "run.json"
"""The last file that a run writes which stops before the test rows."""


def run(config: Config, args: dict[str, str]) -> None:
    """Train, evaluate and write the run folder; a finished run is left as it is, a broken-off one goes on.

    Of several ranks all train; the first alone writes and evaluates. With evaluate=false nothing is predicted for a
    test row: run.json has the validation scores alone, and the verb evaluate goes on from there.
    """
    require(config)
    evaluating = flag(args, "evaluate", True)
    first = rank_zero_only.rank == 0
    console = Console(quiet=not first)
    folder = run_folder(config)
    if is_finished(config, FINISHED if evaluating else FITTED):
        console.print(f"{folder} is finished and used as it is; delete the folder to train anew", highlight=False)
        return
    rows = read_rows(config.data)
    console.print(f"{config.data.name}: {len(rows.train)} training rows with {', '.join(rows.modalities)}; the target "
                  f"is a {rows.target.kind}, scored by {rows.target.metric}", highlight=False)
    llm = open_llm(config)
    L.seed_everything(config.seed, verbose=False)
    pipeline = open_pipeline(config, rows, llm)
    logger = tracking.start(config, folder)
    copies = near_copies(rows)
    if first:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "config.yaml", to_yaml(config))
        write_text(folder / "data.md", card(rows, config.data, copies))
    with llm.store:
        try:
            fitted = method_of(config).fit(config, folder, pipeline, rows, logger) | {"near_copies": len(copies.pairs)}
        except Interrupted:
            if first:
                raise
            return  # the first rank's exit code speaks for all
        if not first:
            return
        fitted["llm_train"] = llm.usage.summary(llm.name)
        llm.usage = Usage()  # the evaluation counts its own, in whatever process it is made
        if not evaluating:
            about = {"method": config.method, "name": config.name, "data": config.data.name, "seed": config.seed}
            write_text(folder / FITTED, json.dumps(fitted | about | {"metric": rows.target.metric}, indent=2) + "\n")
            if logger is not None:
                logger.experiment.finish()
            console.print(f"trained {folder}; evaluate it: python -m project evaluate run={folder}", highlight=False)
            return
        console.print(f"evaluating {len(rows.test)} test rows", highlight=False)
        results = evaluate_run(config, folder, pipeline, rows, fitted)
        info = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        tracking.finish(logger, config, results, pipeline, rows, info)
    console.print(f"finished {folder}", highlight=False)


def is_finished(config: Config, last: str = FINISHED) -> bool:
    """Whether the run of this configuration, whose columns are inferred first, has its last file.

    Raises UserError where its folder holds a run of another configuration.
    """
    if config.data.kind == "table":
        config.data = inferred(config.data)  # the run folder names the columns, whoever chose them
    folder = run_folder(config)
    return same_config(config, folder) and (folder / last).is_file()


def same_config(config: Config, folder: Path) -> bool:
    """Whether the folder already holds a run of this configuration.

    Raises UserError, naming what differs, where it holds a run of another one.
    """
    path = folder / "config.yaml"
    if not path.is_file():
        return False
    changed = differences(yaml.safe_load(path.read_text(encoding="utf-8")), to_dict(config))
    if changed:
        raise UserError(f"{folder} holds a run of another configuration ({'; '.join(changed)}); give another name=, "
                        "or delete the folder")
    return True
