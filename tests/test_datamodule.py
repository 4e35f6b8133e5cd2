"""The data module gives each epoch the texts of its round, as a pure function of row and round."""

import pytest
import torch

from project.config import load_config
from project.datamodule import TextDataModule
from project.llm import open_llm
from project.module import load_tokenizer
from project.pipeline import Pipeline, Task
from project.sources import read_rows


@pytest.fixture
def data(tiny_args):
    def made(*args):
        config = load_config([*tiny_args, *args])
        rows, llm = read_rows(config.data), open_llm(config)
        pipeline = Pipeline(config, Task("?", rows.classes), llm.store, llm, rows.train)
        return TextDataModule(pipeline, rows, load_tokenizer(config.model))

    return made


def ids(texts):
    return [encoding["input_ids"] for encoding in texts]


def test_epochs_take_the_rounds_in_turn(data):
    module = data("method=rules", "perturbation.rounds=2")
    first, second, third = (module.train_texts(epoch) for epoch in range(3))
    assert ids(first.clean) == ids(second.clean)
    assert ids(first.second) != ids(second.second)
    assert ids(first.second) == ids(third.second)


def test_texts_do_not_depend_on_which_epoch_was_asked_for_first(data):
    assert ids(data("method=rules").train_texts(1).second) == ids(_after_epoch_0(data("method=rules")))


def _after_epoch_0(module):
    module.train_texts(0)
    return module.train_texts(1).second


def test_without_perturbation_the_second_view_is_the_clean_text(data):
    texts = data("method=plain").train_texts(0)
    assert ids(texts.second) == ids(texts.clean)


def test_weight_zero_leaves_the_second_view_out(data):
    module = data("method=rules", "perturbation.weight=0")
    assert module.train_texts(0).second is None
    batch = next(iter(module.train_dataloader()))
    assert len(batch["views"]["input_ids"]) == len(batch["labels"])


def test_a_batch_holds_clean_texts_first_then_perturbed_ones_in_the_same_order(data):
    module = data("method=plain")
    batch = next(iter(module.train_dataloader()))
    clean, second = batch["views"]["input_ids"].split(len(batch["labels"]))
    assert torch.equal(clean, second)


def test_validation_reads_the_panel_clean_first(data):
    module = data("method=plain", "robustness.val_levels=[0.3,0.9]")
    batches = list(module.val_dataloader())
    conditions = torch.cat([batch["conditions"] for batch in batches])
    assert conditions.tolist() == [index for index in range(3) for _ in module.rows.val]
