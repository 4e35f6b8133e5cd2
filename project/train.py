"""train: fit a run, then evaluate it and write its results."""

import json
import os
import time
from pathlib import Path

import lightning as L
import yaml
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint, RichProgressBar
from rich.console import Console

from . import tracking
from .config import require, to_dict, to_yaml
from .datamodule import TextDataModule
from .errors import UserError
from .evaluate import evaluate_run
from .llm import open_llm
from .module import RobustTransformer, load_tokenizer
from .pipeline import Pipeline, open_pipeline
from .robustness.scores import SCORES
from .run_folder import differences, run_folder
from .schema import Config
from .sources import Rows, read_rows
from .sources.card import card
from .sources.columns import inferred
from .sources.copies import near_copies

FINISHED = "results.parquet"
"""The last file that a run writes."""


def run(config: Config, args: dict[str, str]) -> None:
    """Train, evaluate and write the run folder; a finished run is left as it is, a broken-off one goes on."""
    require(config)
    console = Console()
    if config.data.kind == "table":
        config.data = inferred(config.data)  # the run folder names the columns, whoever chose them
    folder = run_folder(config)
    if same_config(config, folder) and (folder / FINISHED).is_file():
        console.print(f"{folder} is finished and used as it is; delete the folder to train anew", highlight=False)
        return
    rows = read_rows(config.data)
    console.print(f"{config.data.name}: {len(rows.train)} training rows with {', '.join(rows.modalities)}; the target "
                  f"is a {rows.target.kind}, scored by {rows.target.metric}", highlight=False)
    llm = open_llm(config)
    L.seed_everything(config.seed, verbose=False)
    pipeline = open_pipeline(config, rows, llm)
    logger = tracking.start(config, folder)
    with llm.store:
        data, fitted = fit(config, folder, pipeline, rows, logger)
        console.print(f"evaluating {len(rows.test)} test rows", highlight=False)
        results = evaluate_run(config, folder, pipeline, rows, fitted)
        tracking.finish(logger, config, results, data, json.loads((folder / "run.json").read_text(encoding="utf-8")))
    console.print(f"finished {folder}", highlight=False)


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


def fit(config: Config, folder: Path, pipeline: Pipeline, rows: Rows, logger) -> tuple[TextDataModule, dict]:
    """Train, going on from the last epoch where there is one; writes config.yaml, data.md, checkpoints/, adapter/.

    Returns the data module, and what run.json says of the training. Raises KeyboardInterrupt on Ctrl-C.
    """
    tokenizer = load_tokenizer(config.model)
    data = TextDataModule(pipeline, rows, tokenizer)
    module = RobustTransformer(config, rows.target, data.steps_per_epoch * config.trainer.epochs)
    folder.mkdir(parents=True, exist_ok=True)
    write_aside(folder / "config.yaml", to_yaml(config))
    copies = near_copies(rows)
    write_aside(folder / "data.md", card(rows, config.data, copies))
    mode = "max" if SCORES[rows.target.metric].higher_is_better else "min"
    best = ModelCheckpoint(folder / "checkpoints", filename="best", monitor="val/score", mode=mode, save_last=True,
                           enable_version_counter=False)
    callbacks = [
        best,
        EarlyStopping("val/score", mode=mode, patience=config.trainer.patience),
        RichProgressBar(),
        *([LearningRateMonitor("step")] if logger else []),
    ]
    trainer = L.Trainer(
        max_epochs=config.trainer.epochs, accelerator=config.trainer.accelerator, devices=config.trainer.devices,
        precision=config.trainer.precision, gradient_clip_val=config.trainer.clip, callbacks=callbacks,
        logger=logger or False, default_root_dir=folder, reload_dataloaders_every_n_epochs=1, num_sanity_val_steps=0,
        log_every_n_steps=1, enable_model_summary=False,
    )
    last = folder / "checkpoints" / "last.ckpt"
    start = time.perf_counter()
    try:
        trainer.fit(module, data, ckpt_path=last if last.is_file() else None, weights_only=True)
    except SystemExit as error:
        if trainer.interrupted:
            raise KeyboardInterrupt(f"{folder} goes on from its last epoch with the same command") from error
        raise
    finally:
        data.stop_ahead()
    seconds = time.perf_counter() - start
    checkpoint = trainer.strategy.load_checkpoint(best.best_model_path, weights_only=True)
    module.load_state_dict(checkpoint["state_dict"], strict=False)
    module.model.save_pretrained(folder / "adapter", safe_serialization=True)
    tokenizer.save_pretrained(folder / "adapter")
    panel = {key.removeprefix("val/"): float(value) for key, value in trainer.callback_metrics.items()
             if key.startswith("val/")}
    return data, {
        "steps": trainer.global_step, "forward_samples": module.forward_samples, "epochs": trainer.current_epoch,
        "near_copies": len(copies.pairs), "seconds": {"train": round(seconds, 1)},
        "val": {"best_score": float(best.best_model_score), "last": panel},
    }


def write_aside(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    aside = path.with_suffix(path.suffix + ".part")
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, path)
