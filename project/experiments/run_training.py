"""Train a run, then evaluate it and write its results."""

from collections.abc import Sequence
from pathlib import Path

import lightning as L
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console

from ..config.compose import check_complete, to_yaml
from ..config.run_identity import run_folder
from ..config.schema import Config
from ..data.dataset_card import dataset_card
from ..data.near_duplicates import near_copies
from ..data.rows import read_rows
from ..evaluation import evaluate_run as evaluation
from ..evaluation import tracking
from ..evaluation.run_info import RunInfo
from ..evaluation.run_status import is_finished, is_trained
from ..llm.client import Usage
from ..llm.factory import open_llm
from ..methods.base import method_of
from ..pipeline.pipeline import open_pipeline
from ..runtime.atomic_io import write_text
from ..runtime.signals import Interrupted


def train(
    config: Config, evaluate: bool = True, callbacks: Sequence[L.Callback] = ()
) -> tuple[dict[str, float], dict[str, Path]]:
    """Train and evaluate a run, and return its metrics by their W&B names and the paths of its files.

    A complete run is not changed, and an interrupted one is resumed. If only the keys of the evaluation changed since
    the run was trained, it is evaluated again without training. Without `evaluate` no test row is predicted: run.json
    then has the validation scores, and a later call with `evaluate` adds the evaluation. `callbacks` are added to
    Lightning's Trainer.

    With several ranks, all train; the first one writes and evaluates, and the others return two empty dicts. Raises
    UserError if the configuration is wrong or the folder holds a run of another one, KeyboardInterrupt on Ctrl-C, and
    Interrupted after a stop signal; both leave a checkpoint to resume from.
    """
    check_complete(config)
    is_first = rank_zero_only.rank == 0
    console = Console(quiet=not is_first, highlight=False)
    folder = run_folder(config)
    if (is_finished if evaluate else is_trained)(config):
        console.print(f"Run {folder} is already complete. Delete the folder to retrain.")
        return evaluation.run_outputs(folder) if is_first else ({}, {})
    if is_trained(config):
        return evaluation.evaluate(config) if is_first else ({}, {})
    rows = read_rows(config.data)
    console.print(
        f"{config.data.name}: {len(rows.train)} training rows with {', '.join(rows.modalities)}; the target "
        f"is a {rows.target.kind}, scored by {rows.target.metric}"
    )
    llm = open_llm(config)
    L.seed_everything(config.seed, verbose=False)
    pipeline = open_pipeline(config, rows, llm)
    logger = tracking.start_logger(config, folder)
    copies = near_copies(rows)
    if is_first:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "config.yaml", to_yaml(config))
        write_text(folder / "data.md", dataset_card(rows, config.data, copies))
    with llm.store:
        try:
            fit = method_of(config).fit(config, folder, pipeline, rows, logger, callbacks)
        except Interrupted:
            if is_first:
                raise
            return {}, {}  # the exit code of the first rank counts
        if not is_first:
            return {}, {}
        usage = llm.usage.summary(llm.name)
        info = RunInfo.of(config, rows.target.metric, fit, near_copies=len(copies.pairs), llm_train=usage)
        llm.usage = Usage()  # the evaluation counts its own, in this process or in a later one
        if evaluate:
            console.print(f"evaluating {len(rows.test)} test rows")
            results, info = evaluation.evaluate_run(config, folder, pipeline, rows, info)
            tracking.finish(logger, config, results, pipeline, rows, info)
        else:
            info.write(folder)
            tracking.close(logger)
    return evaluation.run_outputs(folder)
