"""Compare the evaluation of five seeds with a loop that re-runs every stage for every condition and seed.

    python benchmarks/evaluation.py [--check] [rows=12] [seeds=5]

Both use the demo's test rows, recorded generations and conditions, and one random adapter per seed (the cost of an
evaluation does not depend on the training):

- project: for each seed the steps of `evaluate`: open the store, load the model, predict every condition. A generation
  counts once for all seeds and conditions; a picture is described once; a text is tokenized and scored once per seed.
- rival: for each seed load the model; for each condition describe, align, tokenize, pad to the longest text of the
  batch and score every record. Within a condition, equal requests to the language model count once. The rival's
  one-shot example and its look-ups of generations are free.

Both are charged the recorded seconds of their generations, including redraws. Prints JSON with the seconds of the
language model, of the computation and their sum, and whether all answers are equal; the bar applies to the ratio of
the sums. With --check the exit code is 1 if the ratio exceeds the bar or an answer differs.
"""

import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from project.config.compose import load_config
from project.config.schema import Config
from project.corruption.conditions import evaluation_conditions
from project.data.rows import Rows, read_rows
from project.llm.factory import open_llm
from project.llm.store.store import Store
from project.methods import text_transformer as transformer
from project.methods.base import Prediction
from project.pipeline.alignment import align
from project.pipeline.corrupt import corrupt
from project.pipeline.describe import describe
from project.pipeline.pipeline import compose, open_pipeline
from project.training import heads
from project.training.encoder import base_model, load_tokenizer, lora_classifier
from project.training.tokenization import encode, pad

BAR = 0.35
DEMO = "data/demo/recorded.parquet"


def random_adapter(config: Config, rows: Rows, folder: Path) -> None:
    """Save a random adapter that changes the encoder, as a trained one does; a new adapter would not."""
    torch.manual_seed(config.seed)
    model = lora_classifier(base_model(config.model, rows.target, config.seed), config.model)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(folder / "adapter", safe_serialization=True)


class Cost:
    """Seconds of computation and of the language model, and the predictions by seed and condition."""

    def __init__(self):
        self.computation, self.language_model = 0.0, 0.0
        self.predictions: dict[tuple[int, str], Prediction] = {}


def project(configs: list[Config], rows: Rows, folder: Path) -> Cost:
    """Evaluate with this project; later seeds find the generations of earlier ones in the store."""
    cost, charged = Cost(), set()
    for config in configs:
        start = time.perf_counter()
        llm = open_llm(config)
        llm.usage.used_keys = charged  # shared, so that a generation of an earlier seed adds no seconds
        with llm.store:
            predictor = transformer.load(config, folder / str(config.seed), open_pipeline(config, rows, llm), rows)
            for condition in evaluation_conditions(config.robustness, rows.modalities):
                cost.predictions[config.seed, str(condition)] = predictor(rows.test, condition)
        cost.computation += time.perf_counter() - start
        cost.language_model += llm.usage.seconds
    return cost


def rival(configs: list[Config], rows: Rows, folder: Path) -> Cost:
    """Evaluate with a loop over seeds and conditions that caches nothing."""
    cost = Cost()
    for config in configs:
        pipeline = open_pipeline(config, rows, open_llm(config))
        exemplar, task = pipeline.exemplar, pipeline.task
        start = time.perf_counter()
        model = transformer.load(config, folder / str(config.seed), pipeline, rows).model
        tokenizer, size = load_tokenizer(config.model), 4 * config.trainer.batch_size
        cost.computation += time.perf_counter() - start
        for condition in evaluation_conditions(config.robustness, rows.modalities):
            llm = open_llm(config)
            start = time.perf_counter()
            with tempfile.TemporaryDirectory() as empty:
                records = [corrupt(record, condition) for record in rows.test]
                described = describe(records, config.experts, Store(empty))
            cost.computation += time.perf_counter() - start
            aligned = align(described, llm, config.alignment, task, exemplar)
            cost.language_model += llm.usage.seconds
            start = time.perf_counter()
            with torch.inference_mode():
                encodings = encode([compose(row.parts) for row in aligned], tokenizer, config.model.max_tokens)
                logits = torch.cat(
                    [
                        model(**pad(encodings[first : first + size], tokenizer)).logits
                        for first in range(0, len(encodings), size)
                    ]
                )
            target, head = rows.target, config.model.head
            cost.predictions[config.seed, str(condition)] = Prediction(
                heads.answers(logits, target, head), heads.probabilities(logits, target, head)
            )
            cost.computation += time.perf_counter() - start
    return cost


def measure(count: int, seeds: int) -> dict:
    """Evaluate the first `count` test rows with both, and compare seconds and answers."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "recorded").mkdir()
        recorded = pq.read_table(DEMO)  # without the image expert's descriptions, so that both describe the pictures
        pq.write_table(recorded.filter(pc.not_equal(recorded["stage"], "image")), folder / "recorded/texts.parquet")
        configs = [
            load_config(
                [
                    "experiment=demo",
                    "method=ours",
                    f"seed={seed}",
                    "store.engine=false",
                    f"store.path={folder / 'store'}",
                    f"store.recorded={folder / 'recorded'}",
                ]
            )
            for seed in range(seeds)
        ]
        rows = read_rows(configs[0].data)
        rows = replace(rows, test=rows.test[:count])
        for config in configs:
            random_adapter(config, rows, folder / str(config.seed))
        with tempfile.TemporaryDirectory() as empty:
            describe(rows.test[:1], configs[0].experts, Store(empty))  # loads the classifier
        rival_cost = rival(configs, rows, folder)
        project_cost = project(configs, rows, folder)
    pairs = [(project_cost.predictions[key], prediction) for key, prediction in rival_cost.predictions.items()]
    sides = {"project": project_cost, "rival": rival_cost}
    seconds = {
        side: {
            "language_model": round(cost.language_model, 1),
            "computation": round(cost.computation, 1),
            "together": round(cost.language_model + cost.computation, 1),
        }
        for side, cost in sides.items()
    }
    ratios = {part: round(seconds["project"][part] / seconds["rival"][part], 3) for part in seconds["rival"]}
    return {
        "rows": len(rows.test),
        "seeds": seeds,
        "conditions": len(pairs) // seeds,
        "seconds": seconds,
        "ratio": ratios,
        "answers": {
            "compared": sum(len(second.answers) for _, second in pairs),
            "distinct": len({answer for _, second in pairs for answer in second.answers}),
            "equal": all(first.answers == second.answers for first, second in pairs),
            "largest_difference_of_a_probability": max(
                float(np.abs(first.probabilities - second.probabilities).max()) for first, second in pairs
            ),
        },
    }


def main(arguments: list[str]) -> int:
    """Measure and print; return 1 if --check is given and the bar is missed or an answer differs, else 0."""
    options = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    report = measure(int(options.get("rows", 12)), int(options.get("seeds", 5)))
    missed = [f"ratio: {report['ratio']['together']}, bar {BAR}"] if report["ratio"]["together"] > BAR else []
    missed += [] if report["answers"]["equal"] else ["answers differ"]
    print(json.dumps({**report, "bar": BAR, "missed": missed}, indent=2))
    return int("--check" in arguments and bool(missed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
