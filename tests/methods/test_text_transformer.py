"""Prediction computes what validation computes."""

import lightning as L
import numpy as np
import pytest
import torch

from project.cli import train
from project.config.compose import load_config
from project.config.run_identity import run_folder
from project.corruption.conditions import CLEAN
from project.data.rows import read_rows
from project.llm.factory import open_llm
from project.methods.base import method_of
from project.pipeline.pipeline import compose, open_pipeline
from project.training import heads as head
from project.training.batching import ResumableLoader
from project.training.module import RobustModule
from project.training.tokenization import encode, pad


def validation_logits(config, rows, model, view):
    """Return the logits that the validation step sees for a view, in Lightning's precision."""
    module, logits = RobustModule(config, rows.target, 1, model), []
    forward = module.forward
    module.forward = lambda view: logits.append(forward(view)) or logits[-1]
    module.log = lambda *args, **options: None
    targets = [record.target for record in rows.val]
    batch = {"views": [view], "targets": targets, "conditions": torch.zeros(len(targets)).long()}
    options = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False, "barebones": False}
    trainer = L.Trainer(accelerator="cpu", precision=config.trainer.precision, **options)
    trainer.validate(module, ResumableLoader(lambda start: iter([batch]), 1), verbose=False)
    model.eval()
    return logits[0]


@pytest.mark.parametrize("method", ["plain", "fusion"])
@pytest.mark.parametrize("precision", ["bf16-mixed", "32-true"])
def test_prediction_runs_in_the_precision_of_validation(tiny_args, method, precision):
    fusion = ("model.image=small", "model.width=16") if method == "fusion" else ()
    args = [*tiny_args, f"method={method}", f"trainer.precision={precision}", "trainer.epochs=1", *fusion]
    config = load_config(args)
    train.run(config, {})
    rows = read_rows(config.data)
    pipeline = open_pipeline(config, rows, open_llm(config))
    predictor = method_of(config).load(config, run_folder(config), pipeline, rows)
    if method == "fusion":
        view = predictor.inputs.view(rows.val, rows.val)
    else:
        texts = [compose(trace.parts) for trace in pipeline.transform(rows.val, CLEAN)]
        view = pad(encode(texts, predictor.tokenizer, config.model.max_tokens), predictor.tokenizer)
    logits = validation_logits(config, rows, predictor.model, view).float()
    expected = head.probabilities(logits, rows.target, config.model.head)
    np.testing.assert_allclose(predictor(rows.val, CLEAN).probabilities, expected, atol=1e-6)
