"""Small real records, a scripted language model, and one small real one."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from project.alignment import Task
from project.config import load_config
from project.errors import UserError
from project.llm.ask import LanguageModel
from project.llm.engine import Completion
from project.llm.store import Store
from project.pipeline import Pipeline
from project.record import Record

REPOSITORY = Path(__file__).parent.parent
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
    """What stands between the data marks of the last message."""
    return request.messages[-1][1].split("<data>\n")[1].split("\n</data>")[0]


def faithful(request) -> str:
    """A copy for style and summary, valid JSON for reasoning, and the words backwards for a perturbation."""
    words = data_of(request).split()
    if request.stage == "perturb":
        return " ".join(reversed(words))
    if request.schema is None:
        return " ".join(words)
    answers = json.loads(request.schema)["properties"]["prediction"]["enum"]
    return json.dumps({"explanation": " ".join(words[:8]), "prediction": answers[len(words) % len(answers)]})


@dataclass
class Scripted:
    """An engine that answers as `reply` says and remembers what it was asked; `reply` may raise, or give (text, end).

    It yields the answers from the last request to the first, which the protocol allows.
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


@pytest.fixture
def scripted():
    return Scripted()


def _record(name, colour, text, material, weight, target) -> Record:
    image = Image.new("RGB", (24, 24), "white")
    ImageDraw.Draw(image).rectangle((4, 8, 19, 8 + len(name)), fill=colour)
    return Record(name, name, image, text, {"material": material, "weight": weight}, target)


@pytest.fixture
def records():
    """Eight rows of three classes with all modalities; no text, cell or name holds the name of a class."""
    targets = dict(apple="Fruit", pear="Fruit", plum="Fruit", bicycle="Vehicle", tram="Vehicle")
    return [_record(*thing, targets.get(thing[0], "Tool")) for thing in THINGS]


@pytest.fixture
def task():
    return Task("What is it?", CLASSES)


@pytest.fixture
def config_of(tmp_path):
    """Composes the project's configuration with a store of the test's own and the smallest language model."""

    def compose(*overrides):
        return load_config(["llm=smollm2", "experts.classifier=false", f"store.path={tmp_path / 'store'}", *overrides])

    return compose


@pytest.fixture
def pipeline_of(config_of, scripted, task, records):
    """Builds a pipeline over the scripted engine, or over another; equal folders share a store."""

    def build(*overrides, engine=scripted, train=None, folder=None):
        config = config_of(*overrides)
        store = Store(folder or config.store.path)
        llm = LanguageModel(config.llm.model, store, lambda: engine)
        return Pipeline(config, task, store, llm, records[:3] if train is None else train)

    return build


@pytest.fixture(scope="session")
def smollm2():
    """The real SmolLM2 in this process, on one thread."""
    pytest.importorskip("xllamacpp")
    from project.llm.llamacpp import LlamaCppEngine

    try:
        return LlamaCppEngine(load_config(["llm=smollm2", "llm.threads=1"]).llm)
    except UserError as error:
        pytest.skip(str(error))
