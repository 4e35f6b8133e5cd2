"""train: fit a run, then evaluate it and write its results."""

import json

import lightning as L
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console

from ..config.compose import check_complete, parse_bool, to_yaml
from ..config.run_identity import run_folder
from ..config.schema import Config
from ..data.dataset_card import dataset_card
from ..data.near_duplicates import near_copies
from ..data.rows import read_rows
from ..evaluation import evaluate_run as evaluate
from ..evaluation import tracking
from ..evaluation.run_status import RUN_JSON, is_finished, is_trained
from ..llm.client import Usage
from ..llm.factory import open_llm
from ..methods.base import method_of
from ..pipeline.pipeline import open_pipeline
from ..runtime.atomic_io import write_text
from ..runtime.signals import Interrupted


def run(config: Config, args: dict[str, str]) -> None:
    """Train, evaluate and write the run folder; a finished run is left as it is, a broken-off one goes on.

    A trained run whose tests are others than the configuration's is tested anew, without training. Of several ranks all
    train; the first alone writes and evaluates. With evaluate=false nothing is predicted for a test row: run.json has
    the validation scores alone, and the same command without it goes on from there.
    """
    check_complete(config)
    evaluating = parse_bool(args, "evaluate", True)
    first = rank_zero_only.rank == 0
    console = Console(quiet=not first)
    folder = run_folder(config)
    if (is_finished if evaluating else is_trained)(config):
        console.print(f"{folder} is finished and used as it is; delete the folder to train anew", highlight=False)
        return
    if is_trained(config):
        if first:
            evaluate.run(config, {})
        return
    rows = read_rows(config.data)
    console.print(
        f"{config.data.name}: {len(rows.train)} training rows with {', '.join(rows.modalities)}; the target "
        f"is a {rows.target.kind}, scored by {rows.target.metric}",
        highlight=False,
    )
    llm = open_llm(config)
    L.seed_everything(config.seed, verbose=False)
    pipeline = open_pipeline(config, rows, llm)
    logger = tracking.start_logger(config, folder)
    copies = near_copies(rows)
    if first:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "config.yaml", to_yaml(config))
        write_text(folder / "data.md", dataset_card(rows, config.data, copies))
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
            write_text(folder / RUN_JSON, json.dumps(fitted | about | {"metric": rows.target.metric}, indent=2) + "\n")
            tracking.close(logger)
            console.print(f"trained {folder}; evaluate it: python -m project evaluate run={folder}", highlight=False)
            return
        console.print(f"evaluating {len(rows.test)} test rows", highlight=False)
        results = evaluate.evaluate_run(config, folder, pipeline, rows, fitted)
        info = json.loads((folder / RUN_JSON).read_text(encoding="utf-8"))
        tracking.finish(logger, config, results, pipeline, rows, info)
    console.print(f"finished {folder}", highlight=False)
