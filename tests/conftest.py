"""Shared fixtures: small real records, a tiny encoder, a scripted language model and a small real one."""

import json
import os
import random
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import settings
from PIL import Image, ImageDraw

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # set before the first import of the hub: no test waits for a network

from project.config.compose import load_config
from project.data.record import Record
from project.errors import UserError
from project.llm.client import LanguageModel
from project.llm.protocol import Completion
from project.llm.store.store import Store
from project.pipeline.alignment import Task
from project.pipeline.pipeline import Pipeline

# No deadline, because a busy machine is slow. With CI set, every run draws the same examples.
settings.register_profile("laws", deadline=None, max_examples=50, derandomize=bool(os.environ.get("CI")))
settings.load_profile("laws")
torch.set_num_threads(1)  # the models are tiny, and threads would wait for each other

CLASSES = ("Fruit", "Tool", "Vehicle")
THINGS = [
    ("hammer", "red", "a heavy hammer with a wooden handle, drives nails in and pulls them out", "steel", "41"),
    ("apple", "green", "a crisp apple from the orchard, sweet with a thin skin and small seeds", "pulp", "12"),
    ("bicycle", "blue", "a light bicycle for the city with two wheels, a bell, a basket and a lamp", "carbon", "88"),
    ("pear", "yellow", "a ripe pear that is soft to the touch, juicy and eaten in late summer", "flesh", "15"),
    ("saw", "black", "a sharp saw that cuts planks and branches, worked by pulling it to and fro", "iron", "37"),
    ("tram", "orange", "a long tram on rails that carries people through town all day and night", "glass", "930"),
    ("plum", "purple", "a dark plum with one large stone, good in cakes and dried for the winter", "fibre", "4"),
    ("wrench", "grey", "an adjustable wrench for bolts and nuts, kept in every box in the garage", "chrome", "26"),
]


def data_of(request) -> str:
    """Return the text between the data marks of the last message."""
    return request.messages[-1][1].split("<data>\n")[1].split("\n</data>")[0]


def faithful(request) -> str:
    """Return a copy for style and summary, valid JSON for reasoning, and the reversed words for a perturbation."""
    words = data_of(request).split()
    if request.stage == "perturb":
        return " ".join(reversed(words))
    if request.schema is None:
        return " ".join(words)
    answers = json.loads(request.schema)["properties"]["prediction"].get("enum", [0.5])
    return json.dumps({"explanation": " ".join(words[:8]), "prediction": answers[len(words) % len(answers)]})


@dataclass
class Scripted:
    """An engine that answers with `reply(request)` and records the requests.

    `reply` may raise, or return (text, finish reason). Completions come from the last request to the first, which the
    protocol allows.
    """

    reply: object = faithful
    asked: list = field(default_factory=list)
    batches: list = field(default_factory=list)

    def generate(self, requests, seeds):
        self.batches.append(list(zip(requests, seeds, strict=True)))
        for index in reversed(range(len(requests))):
            text = self.reply(requests[index])
            self.asked.append(requests[index])
            text, finish = text if isinstance(text, tuple) else (text, "stop")
            yield index, Completion(text, finish, 10, len(text.split()), 0.5)


@pytest.fixture(autouse=True)
def drawn_alike():
    """Seed the random generators, so that a test's weights, batches and dropout do not depend on earlier tests."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture
def scripted():
    return Scripted()


def _record(name, colour, text, material, weight, target) -> Record:
    image = Image.new("RGB", (24, 24), "white")
    ImageDraw.Draw(image).rectangle((4, 8, 19, 8 + len(name)), fill=colour)
    return Record(name, name, image, text, {"material": material, "weight": weight}, target)


@pytest.fixture
def records():
    """Return eight rows of three classes with all modalities; no text, cell or name contains the name of a class."""
    targets = dict(apple="Fruit", pear="Fruit", plum="Fruit", bicycle="Vehicle", tram="Vehicle")
    return [_record(*thing, targets.get(thing[0], "Tool")) for thing in THINGS]


@pytest.fixture
def task():
    return Task("What is it?", CLASSES)


@pytest.fixture
def config_of(tmp_path):
    """Return a function that composes the configuration with a temporary store and the smallest language model."""

    def compose(*overrides):
        return load_config(["llm=smollm2", "experts.classifier=false", f"store.path={tmp_path / 'store'}", *overrides])

    return compose


@pytest.fixture
def pipeline_of(config_of, scripted, task, records):
    """Return a function that builds a pipeline on the scripted engine or another; equal folders share a store."""

    def build(*overrides, engine=scripted, train=None, folder=None):
        config = config_of(*overrides)
        store = Store(folder or config.store.path)
        llm = LanguageModel(config.llm.model, store, lambda: engine)
        return Pipeline(config, task, store, llm, records[:3] if train is None else train)

    return build


@pytest.fixture(scope="session")
def smollm2():
    """Return the real SmolLM2 in this process, on one thread."""
    pytest.importorskip("xllamacpp")
    from project.llm.engines.llamacpp import LlamaCppEngine

    try:
        return LlamaCppEngine(load_config(["llm=smollm2", "llm.threads=1", "llm.slots=1"]).llm)
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory):
    """Return a folder with a randomly initialized BERT of two layers and a trained word-piece tokenizer."""
    from tokenizers import BertWordPieceTokenizer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("encoder")
    words = "the colour of it is red blue green round a thing small large heavy price city sweet sour shape".split()
    word_pieces = BertWordPieceTokenizer()
    word_pieces.train_from_iterator([" ".join(words)] * 5, vocab_size=120, min_frequency=1, show_progress=False)
    word_pieces.save_model(str(folder))
    tokenizer = BertTokenizerFast(vocab=str(folder / "vocab.txt"), model_max_length=64)
    tokenizer.save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)  # the same encoder in every session
        BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def table_file(tmp_path_factory):
    """Return a CSV of 48 rows in three classes with small real images; text and colour mostly determine the class."""
    folder = tmp_path_factory.mktemp("rows")
    draw = random.Random(0)
    rows = []
    for index in range(48):
        name, colour = draw.choice([("apple", "red"), ("plum", "blue"), ("pear", "green")])
        noise = np.random.default_rng(index).integers(0, 60, (16, 16, 3), dtype=np.uint8)
        noise[4:12, 4:12] = {"red": (230, 20, 20), "blue": (20, 20, 230), "green": (20, 200, 20)}[colour]
        Image.fromarray(noise).save(folder / f"{index}.png")
        rows.append(
            {
                "photo": f"{index}.png",
                "title": f"a {colour} thing, round and {draw.choice(['sweet', 'sour'])}",
                "price": draw.randint(1, 9),
                "city": draw.choice("AB"),
                "kind": name,
                "seller": f"s{index % 24}",
            }
        )
    pd.DataFrame(rows).to_csv(folder / "rows.csv", index=False)
    return folder / "rows.csv"


@pytest.fixture
def tiny_args(tiny_encoder, table_file, tmp_path):
    """Return the arguments of a run that takes seconds: `table_file`, the tiny encoder, no language model, no W&B."""
    return [
        "data=table",
        f"data.path={table_file}",
        "data.image=photo",
        "data.text=[title]",
        "data.table=[price,city]",
        "data.target=kind",
        "data.group=seller",
        "experts.classifier=false",
        f"model.encoder={tiny_encoder}",
        "model.max_tokens=48",
        "trainer=cpu",
        "trainer.epochs=3",
        "trainer.batch_size=8",
        f"output={tmp_path / 'outputs'}",
        f"store.path={tmp_path / 'store'}",
        "wandb.mode=disabled",
        "robustness.levels=[0.5]",
        "robustness.missing=single",
        "robustness.orders=1",
        "robustness.resamples=50",
    ]
