"""What the evaluation of five seeds costs beside re-running every stage for every condition and seed.

    python benchmarks/evaluation.py [--check] [rows=12] [seeds=5]

The demo's test rows and recorded generations, its conditions, and adapters drawn at random, one a seed (what an
evaluation costs does not depend on what was learned):

- project: for each seed, what `evaluate` does: the store opened anew, the model loaded, every condition predicted. A
  generation is paid once, whatever seeds and conditions use it; a picture is described once; a text is tokenized and
  scored once a seed.
- rival: for each seed the model loaded; for each of its conditions describe, align, tokenize, pad to the longest of the
  batch and score every record. Within a condition it asks the language model once for equal requests. Neither its
  one-shot example nor its look-ups of the generations are charged.

Both pay the recorded seconds of their generations, redraws included. Prints JSON with the seconds of the language model
and of the computation, apart and together, and whether all answers are equal; the bar is on the ratio together. With
--check it exits 1 where that is above the bar, or an answer differs.
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
from project.training import heads as head
from project.training.encoder import base_model, load_tokenizer, lora_classifier
from project.training.tokenization import encode, pad

BAR = 0.35
DEMO = "data/demo/recorded.parquet"


def random_adapter(config: Config, rows: Rows, folder: Path) -> None:
    """An adapter that changes the encoder, as a trained one does; a fresh one would not."""
    torch.manual_seed(config.seed)
    model = lora_classifier(base_model(config.model, rows.target, config.seed), config.model)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(folder / "adapter", safe_serialization=True)


class Bill:
    """Seconds of computation and of the language model, and the predictions by seed and condition."""

    def __init__(self):
        self.computation, self.language_model = 0.0, 0.0
        self.predictions: dict[tuple[int, str], Prediction] = {}


def project(configs: list[Config], rows: Rows, folder: Path) -> Bill:
    """The project's way; the generations that a seed used before are in the store by then."""
    bill, paid = Bill(), set()
    for config in configs:
        start = time.perf_counter()
        llm = open_llm(config)
        llm.usage.used_keys = paid  # shared, so that only what no seed before has asked for adds its seconds
        with llm.store:
            predictor = transformer.load(config, folder / str(config.seed), open_pipeline(config, rows, llm), rows)
            for condition in evaluation_conditions(config.robustness, rows.modalities):
                bill.predictions[config.seed, str(condition)] = predictor(rows.test, condition)
        bill.computation += time.perf_counter() - start
        bill.language_model += llm.usage.seconds
    return bill


def rival(configs: list[Config], rows: Rows, folder: Path) -> Bill:
    """A loop over seeds and conditions that keeps nothing."""
    bill = Bill()
    for config in configs:
        pipeline = open_pipeline(config, rows, open_llm(config))
        exemplar, task = pipeline.exemplar, pipeline.task
        start = time.perf_counter()
        model = transformer.load(config, folder / str(config.seed), pipeline, rows).model
        tokenizer, size = load_tokenizer(config.model), 4 * config.trainer.batch_size
        bill.computation += time.perf_counter() - start
        for condition in evaluation_conditions(config.robustness, rows.modalities):
            llm = open_llm(config)
            start = time.perf_counter()
            with tempfile.TemporaryDirectory() as empty:
                records = [corrupt(record, condition) for record in rows.test]
                described = describe(records, config.experts, Store(empty))
            bill.computation += time.perf_counter() - start
            aligned = align(described, llm, config.alignment, task, exemplar)
            bill.language_model += llm.usage.seconds
            start = time.perf_counter()
            with torch.inference_mode():
                encodings = encode([compose(row.parts) for row in aligned], tokenizer, config.model.max_tokens)
                logits = torch.cat(
                    [
                        model(**pad(encodings[first : first + size], tokenizer)).logits
                        for first in range(0, len(encodings), size)
                    ]
                )
            how = rows.target, config.model.head
            bill.predictions[config.seed, str(condition)] = Prediction(
                head.answers(logits, *how), head.probabilities(logits, *how)
            )
            bill.computation += time.perf_counter() - start
    return bill


def measured(count: int, seeds: int) -> dict:
    """Both ways on the first `count` test rows, and what they have in common."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "recorded").mkdir()
        recorded = pq.read_table(DEMO)  # without what the image expert said: both have to look at the pictures
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
        theirs = rival(configs, rows, folder)
        ours = project(configs, rows, folder)
    pairs = [(ours.predictions[key], there) for key, there in theirs.predictions.items()]
    sides = {"project": ours, "rival": theirs}
    seconds = {
        side: {
            "language_model": round(bill.language_model, 1),
            "computation": round(bill.computation, 1),
            "together": round(bill.language_model + bill.computation, 1),
        }
        for side, bill in sides.items()
    }
    ratios = {part: round(seconds["project"][part] / seconds["rival"][part], 3) for part in seconds["rival"]}
    return {
        "rows": len(rows.test),
        "seeds": seeds,
        "conditions": len(pairs) // seeds,
        "seconds": seconds,
        "ratio": ratios,
        "answers": {
            "compared": sum(len(there.answers) for _, there in pairs),
            "distinct": len({answer for _, there in pairs for answer in there.answers}),
            "equal": all(here.answers == there.answers for here, there in pairs),
            "largest_difference_of_a_probability": max(
                float(np.abs(here.probabilities - there.probabilities).max()) for here, there in pairs
            ),
        },
    }


def main(arguments: list[str]) -> int:
    """Measure both; 1 where --check finds a missed bar."""
    given = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    report = measured(int(given.get("rows", 12)), int(given.get("seeds", 5)))
    missed = [f"ratio: {report['ratio']['together']}, bar {BAR}"] if report["ratio"]["together"] > BAR else []
    missed += [] if report["answers"]["equal"] else ["answers differ"]
    print(json.dumps({**report, "bar": BAR, "missed": missed}, indent=2))
    return int("--check" in arguments and bool(missed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
