"""Evaluate a trained run under every condition: predictions first, then the results that are derived from them."""

import logging
import re
import shutil
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..config.compose import check_complete, run_config, to_yaml
from ..config.run_identity import run_folder
from ..config.schema import Config
from ..corruption.conditions import ATTACK, CLEAN, Condition, evaluation_conditions
from ..data.record import Record
from ..data.rows import Rows, read_rows
from ..errors import UserError
from ..llm.client import Usage, merge_usage
from ..llm.factory import open_llm
from ..methods.base import Prediction, Predictor, method_of
from ..pipeline.corrupt import corrupt
from ..pipeline.pipeline import Pipeline, open_pipeline
from ..pipeline.text_log import TEXTS_FILE, logged_conditions, text_rows, text_table, training_rows
from ..runtime.atomic_io import write_parquet, write_text
from ..runtime.progress import progress_bar
from . import tracking
from .attack import attack
from .provenance import hardware, revision, versions
from .results import results_table
from .run_info import RUN_JSON, RunInfo
from .run_status import RESULTS_FILE, run_matches

log = logging.getLogger(__name__)


def evaluate(config: Config, run: Path | None = None) -> tuple[dict[str, float], dict[str, Path]]:
    """Evaluate a trained run, or evaluate it again, and return (metrics, paths) as `run_outputs` does.

    `run` is the run folder, by default that of the configuration; the W&B run is resumed. With another language model
    than the run's, a copy of the run is evaluated (see `evaluation_folder`). Raises UserError if there is no run, or
    if it was trained with another configuration.
    """
    check_complete(config)
    folder = run_folder(config) if run is None else evaluation_folder(config, run)
    if run is None and not run_matches(config):
        raise UserError(
            f"{folder} holds no run; train it first: python -m project train "
            f"experiment={config.experiment} method={config.method} seed={config.seed}"
        )
    rows = read_rows(config.data)
    llm = open_llm(config)
    info = RunInfo.read(folder) if (folder / RUN_JSON).is_file() else RunInfo.of(config, rows.target.metric)
    with llm.store:
        pipeline = open_pipeline(config, rows, llm)
        results, info = evaluate_run(config, folder, pipeline, rows, info)
        tracking.finish(tracking.start_logger(config, folder), config, results, pipeline, rows, info)
    return run_outputs(folder)


def run_outputs(folder: Path) -> tuple[dict[str, float], dict[str, Path]]:
    """Return the metrics of a run by their W&B names, and the paths of its files by their stem, with its `folder`.

    Raises UserError if run.json is missing or damaged.
    """
    info, results = RunInfo.read(folder), folder / RESULTS_FILE
    metrics = {"val/best_score": info.val.best_score} if info.val else {}
    if results.is_file():
        metrics |= tracking.summary(pd.read_parquet(results), info.metric)
    files = {path.stem: path for path in sorted(folder.iterdir()) if path.is_file()}
    return metrics, {"folder": folder, **files}


def evaluation_folder(config: Config, run: Path) -> Path:
    """Return the folder that an evaluation writes to: the run's own, or a copy if the language model is another one.

    The copy is next to the run and has no results; @<model> is added to its name and to the configuration's. So a run
    that was trained on the texts of one model can be evaluated on those of another, as a run of its own in reports.
    """
    if config.llm.model == run_config(run).llm.model:
        return run
    suffix = "@" + re.sub(r"[/\\]", "-", config.llm.model)
    config.name += suffix
    run = run.resolve()
    copy = run.parent.with_name(run.parent.name + suffix) / run.name
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("checkpoints", "wandb", "*.parquet"), dirs_exist_ok=True)
    (copy / "config.yaml").write_text(to_yaml(config), encoding="utf-8")
    return copy


@dataclass
class ConditionAnswers:
    """Predictions and texts under all conditions, as tables; shares of test rows by condition, as in RunInfo."""

    predictions: list[pd.DataFrame] = field(default_factory=list)
    texts: list[dict] = field(default_factory=list)
    empty_texts: dict[str, float] = field(default_factory=dict)
    unparsed: dict[str, float] = field(default_factory=dict)
    attack: dict[str, Any] = field(default_factory=dict)


def evaluate_run(
    config: Config, folder: Path, pipeline: Pipeline, rows: Rows, info: RunInfo
) -> tuple[pd.DataFrame, RunInfo]:
    """Predict the test rows under every condition, and return the results and the info with the evaluation's part.

    Writes predictions.parquet, texts.parquet if the method reads texts, run.json, and results.parquet last. `info` is
    what training reported; the cost of the language model is that of training and evaluation together.
    """
    start = time.perf_counter()
    predictor = method_of(config).load(config, folder, pipeline, rows)
    if info.llm_train.get("generations") and pipeline.exemplar:
        pipeline.llm.usage = Usage()  # training has already counted the exemplar
    answers = answer_conditions(config, pipeline, rows, predictor)
    predictions = pd.concat(answers.predictions, ignore_index=True)
    results = results_table(
        predictions,
        method=config.name,
        data=config.data.name,
        seed=config.seed,
        target=rows.target,
        resamples=config.robustness.resamples,
    )
    info = replace(
        info,
        method=config.method,
        name=config.name,
        data=config.data.name,
        seed=config.seed,
        metric=rows.target.metric,
        perturbation=info.perturbation or config.perturbation.kind,
        task=rows.target.kind,
        classes=list(rows.target.classes),
        constant=rows.target.constant,
        modalities=list(rows.modalities),
        corruption_seed=config.robustness.seed,
        rows={"train": len(rows.train), "val": len(rows.val), "test": len(rows.test)},
        llm=merge_usage(info.llm_train, pipeline.llm.usage.summary(pipeline.llm.name)),
        empty_texts=answers.empty_texts,
        unparsed=answers.unparsed,
        attack=answers.attack,
        versions=versions(),
        git=revision(),
        hardware=hardware(),
        wandb=str(folder / "wandb"),
        seconds=info.seconds | {"evaluate": round(time.perf_counter() - start, 1)},
    )
    (folder / RESULTS_FILE).unlink(missing_ok=True)  # results of an earlier evaluation would not match the predictions
    write_parquet(predictions, folder / "predictions.parquet")
    if answers.texts:  # after the usage is summed up: logging the training texts is no cost of the method
        texts = answers.texts + training_rows(pipeline, rows.train, info.epochs or 0)
        write_parquet(text_table(texts), folder / TEXTS_FILE)
    info.write(folder)
    write_text(folder / "config.yaml", to_yaml(config))
    write_parquet(results, folder / RESULTS_FILE)
    return results, info


def answer_conditions(config: Config, pipeline: Pipeline, rows: Rows, predictor: Predictor) -> ConditionAnswers:
    """Return the answers for the test rows under every condition, and under an attack if one is configured."""
    answers = ConditionAnswers()
    conditions = evaluation_conditions(config.robustness, rows.modalities)
    logged = logged_conditions(conditions)
    with progress_bar() as bar:
        task = bar.add_task("conditions", total=len(conditions))
        for condition in conditions:
            corrupted = (corrupt(record, condition, rows.train) for record in rows.test)
            answers.empty_texts[str(condition)] = float(np.mean([not record.text for record in corrupted]))
            prediction = predictor(rows.test, condition)
            answers.predictions.append(_prediction_table(rows.test, condition, prediction))
            if prediction.unparsed is not None:
                answers.unparsed[str(condition)] = sum(prediction.unparsed) / len(rows.test)
            if prediction.traces is not None and condition in logged:
                answers.texts += text_rows(prediction.traces, "test", str(condition))
            if condition == CLEAN and config.robustness.attack and attackable(config, rows, predictor):
                draws = config.robustness.attack_draws
                attacked, answers.attack = attack(predictor, prediction, pipeline, rows.target, draws)
                answers.predictions.append(_prediction_table(rows.test, ATTACK, attacked))
                answers.texts += text_rows(attacked.traces, "test", str(ATTACK))
            bar.advance(task)
    return answers


def attackable(config: Config, rows: Rows, predictor: Predictor) -> bool:
    """Return True if the method can be attacked; log a warning if not."""
    if rows.target.kind == "number":
        log.warning("robustness.attack: no attack on %s, since an attack needs classes", config.method)
    elif not hasattr(predictor, "read"):
        log.warning("robustness.attack: no attack on %s, which reads no texts of the pipeline", config.method)
    else:
        return True
    return False


def _prediction_table(records: list[Record], condition: Condition, prediction: Prediction) -> pd.DataFrame:
    """Return one row per record, with the columns of predictions.parquet.

    llm_prediction is what the language model itself predicted for the text, for text methods with the reasoning stage;
    it is null if the model gave no prediction, and after an attack, since the model did not see the attacked text.
    """
    probabilities, traces = prediction.probabilities, prediction.traces
    has_reasoning = any("reasoning" in trace.aligned.answers for trace in traces or ())
    llm_predictions = (
        [
            None if trace.perturbed or trace.aligned.prediction is None else type(answer)(trace.aligned.prediction)
            for trace, answer in zip(traces, prediction.answers, strict=True)
        ]
        if has_reasoning
        else []
    )
    return pd.DataFrame(
        {
            "record": [record.id for record in records],
            "group": [record.group for record in records],
            "present": [",".join(record.present) for record in records],
            "condition": str(condition),
            "kind": condition.kind,
            "corruption": condition.corruption,
            "modality": condition.modality,
            "level": condition.level,
            "order": ",".join(condition.order),
            "target": [record.target for record in records],
            "prediction": prediction.answers,
            "probabilities": [None] * len(records) if probabilities is None else list(probabilities),
            **({"llm_prediction": llm_predictions} if has_reasoning else {}),
        }
    )
