"""evaluate: a finished run under every condition; predictions first, results derived from them."""

import json
import logging
import platform
import re
import shutil
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console

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
from ..pipeline.text_log import FILE, kept_conditions, text_rows, text_table, training_rows
from ..runtime.atomic_io import write_parquet, write_text
from ..runtime.progress import progress_bar
from . import tracking
from .attack import attack
from .provenance import PACKAGES, hardware, revision
from .results import results_table
from .run_status import RESULTS_FILE, RUN_JSON, run_matches

log = logging.getLogger(__name__)


def run(config: Config, args: dict[str, str]) -> None:
    """Evaluate a trained run, again where it has results, and write them anew; its W&B run goes on.

    Raises UserError where there is no run, or one that was trained as another configuration says.
    """
    check_complete(config)
    folder = own_folder(config, Path(args["run"])) if "run" in args else run_folder(config)
    if not ("run" in args or run_matches(config)):
        raise UserError(
            f"{folder} holds no run; make it first: python -m project train "
            f"experiment={config.experiment} method={config.method} seed={config.seed}"
        )
    rows = read_rows(config.data)
    llm = open_llm(config)
    known = folder / RUN_JSON
    fitted = json.loads(known.read_text(encoding="utf-8")) if known.is_file() else {}
    with llm.store:
        pipeline = open_pipeline(config, rows, llm)
        results = evaluate_run(config, folder, pipeline, rows, fitted)
        info = json.loads(known.read_text(encoding="utf-8"))
        tracking.finish(tracking.start_logger(config, folder), config, results, pipeline, rows, info)
    Console().print(f"evaluated {folder}", highlight=False)


def own_folder(config: Config, run: Path) -> Path:
    """Where the run is evaluated: its own folder, or beside it where the configuration has another language model.

    That one is a copy without results, whose name, like the configuration's, gets @<model>. So a run can be trained on
    one model's texts and tested on another's, as a run of its own in every report.
    """
    trained = run_config(run).llm.model
    if config.llm.model == trained:
        return run
    suffix = "@" + re.sub(r"[/\\]", "-", config.llm.model)
    config.name += suffix
    run = run.resolve()
    copy = run.parent.with_name(run.parent.name + suffix) / run.name
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("checkpoints", "wandb", "*.parquet"), dirs_exist_ok=True)
    (copy / "config.yaml").write_text(to_yaml(config), encoding="utf-8")
    return copy


def evaluate_run(config: Config, folder: Path, pipeline: Pipeline, rows: Rows, fitted: dict) -> pd.DataFrame:
    """Predict the test rows under every condition; writes predictions.parquet, run.json and results.parquet, last.

    A method that reads texts leaves them in texts.parquet. Returns the results. `fitted` is what the training said of
    itself, for run.json, whose `llm` is what training and evaluation asked of the language model.
    """
    start = time.perf_counter()
    fitted = {key: value for key, value in fitted.items() if key not in ("unparsed", "attack")}  # of a former test
    predictor = method_of(config).load(config, folder, pipeline, rows)
    paid = fitted.get("llm_train", {})
    if paid.get("generations") and pipeline.exemplar:  # which the training has paid for
        pipeline.llm.usage = Usage()
    tables, empty, unparsed, attacked, texts = [], {}, {}, {}, []
    conditions = evaluation_conditions(config.robustness, rows.modalities)
    kept = kept_conditions(conditions)
    with progress_bar() as bar:
        task = bar.add_task("conditions", total=len(conditions))
        for condition in conditions:
            damaged = (corrupt(record, condition, rows.train) for record in rows.test)
            empty[str(condition)] = float(np.mean([not record.text for record in damaged]))
            prediction = predictor(rows.test, condition)
            tables.append(_predictions(rows.test, condition, prediction))
            if prediction.unparsed is not None:
                unparsed[str(condition)] = sum(prediction.unparsed) / len(rows.test)
            if prediction.traces is not None and condition in kept:
                texts += text_rows(prediction.traces, "test", str(condition))
            if condition == CLEAN and config.robustness.attack and attackable(config, rows, predictor):
                found, attacked = attack(predictor, prediction, pipeline, rows.target, config.robustness.attack_draws)
                tables.append(_predictions(rows.test, ATTACK, found))
                texts += text_rows(found.traces, "test", str(ATTACK))
            bar.advance(task)
    predictions = pd.concat(tables, ignore_index=True)
    results = results_table(
        predictions,
        method=config.name,
        data=config.data.name,
        seed=config.seed,
        target=rows.target,
        resamples=config.robustness.resamples,
    )
    info = {
        "perturbation": config.perturbation.kind,
        **fitted,
        "method": config.method,
        "name": config.name,
        "data": config.data.name,
        "seed": config.seed,
        "task": rows.target.kind,
        "metric": rows.target.metric,
        "classes": list(rows.target.classes),
        "constant": rows.target.constant,
        "modalities": list(rows.modalities),
        "corruption_seed": config.robustness.seed,
        "rows": {"train": len(rows.train), "val": len(rows.val), "test": len(rows.test)},
        "llm": merge_usage(paid, pipeline.llm.usage.summary(pipeline.llm.name)),
        "empty_texts": empty,
        **({"unparsed": unparsed} if unparsed else {}),
        **({"attack": attacked} if attacked else {}),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "git": revision(),
        "hardware": hardware(),
        "wandb": str(folder / "wandb"),
    }
    info["seconds"] = {**fitted.get("seconds", {}), "evaluate": round(time.perf_counter() - start, 1)}
    (folder / RESULTS_FILE).unlink(missing_ok=True)  # of an earlier evaluation, which may have had other conditions
    write_parquet(predictions, folder / "predictions.parquet")
    if texts:  # after the usage was summed up: what is read here again belongs to no method's cost
        texts += training_rows(pipeline, rows.train, fitted.get("epochs", 0))
        write_parquet(text_table(texts), folder / FILE)
    write_text(folder / RUN_JSON, json.dumps(info, indent=2, ensure_ascii=False) + "\n")
    write_text(folder / "config.yaml", to_yaml(config))
    write_parquet(results, folder / RESULTS_FILE)
    return results


def attackable(config: Config, rows: Rows, predictor: Predictor) -> bool:
    """Whether an attack can be made on the method, which is said where it cannot."""
    if rows.target.kind == "number":
        log.warning("robustness.attack: no attack on %s, since a number is no class to be led away from", config.method)
    elif not hasattr(predictor, "read"):
        log.warning("robustness.attack: no attack on %s, which reads no texts of the pipeline", config.method)
    else:
        return True
    return False


def _predictions(records: list[Record], condition: Condition, prediction: Prediction) -> pd.DataFrame:
    """One row a record, in the columns of predictions.parquet.

    Of a text method with the reasoning stage, llm_prediction is what the language model itself predicted for the text
    as it is read; null where it gave nothing, and after an attack, which it did not see.
    """
    probabilities, traces = prediction.probabilities, prediction.traces
    reasoned = any("reasoning" in trace.aligned.answers for trace in traces or ())
    said = (
        [
            None if trace.perturbed or trace.aligned.prediction is None else type(answer)(trace.aligned.prediction)
            for trace, answer in zip(traces, prediction.answers, strict=True)
        ]
        if reasoned
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
            **({"llm_prediction": said} if reasoned else {}),
        }
    )
