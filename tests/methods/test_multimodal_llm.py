"""A multimodal language model as a method: its prompts, its images and the parsing of its answers."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from project.cli import prepare, train
from project.config.compose import load_config
from project.config.run_identity import run_folder
from project.corruption.conditions import CLEAN, Condition, noisy
from project.data.images import digest, pixels
from project.data.record import Record
from project.data.rows import Rows
from project.data.target import Target, number_target
from project.errors import UserError
from project.llm import factory as engines
from project.llm.protocol import IMAGE
from project.methods.llm_zero_shot import NO_ANSWER
from project.methods.multimodal_llm import few_shot_rows, load
from project.pipeline.pipeline import EMPTY_TEXT
from tests.conftest import CLASSES

MARKER = "ZQX-marker"
BACKWARDS = Condition("order", order=("table", "text", "image"))


def answer_from_hash(request) -> str:
    """Return an answer that depends on the whole prompt, wrapped in text as chat models do."""
    classes = json.loads(request.schema)["properties"]["prediction"].get("enum", [0.5, 2.5])
    return f"Sure: {json.dumps({'prediction': classes[len(str(request.images) + request.messages[-1][1]) % 3]})}"


@pytest.fixture
def build_predictor(pipeline_of, scripted, records):
    """Return a function that builds the predictor on the scripted engine; five records are training rows."""
    scripted.reply = answer_from_hash

    def build(*overrides, train=None, folder=None):
        pipeline = pipeline_of("method=mllm", *overrides, folder=folder)
        train = records[:5] if train is None else train
        rows = Rows(train, [], [], Target("class", CLASSES[0], CLASSES), ("image", "text", "table"))
        return load(pipeline.config, None, pipeline, rows)

    return build


def test_a_prompt_has_the_image_and_text_and_table_as_data(build_predictor, scripted, records):
    prediction = build_predictor()(records[5:], CLEAN)
    assert set(prediction.answers) <= set(CLASSES) and not any(prediction.unparsed) and len(scripted.asked) == 3
    for request in scripted.asked:
        (record,) = (record for record in records if f"text: {record.text}" in request.messages[-1][1])
        assert request.images == (digest(pixels(record.image)),) and np.array_equal(
            request.pixels[0], pixels(record.image)
        )
        first, *rest = request.messages[-1][1].split("\n")
        assert first == IMAGE and rest.count("<data>") == rest.count("</data>") == 2
        assert "What is it?" in request.messages[0][1] and "; ".join(CLASSES) in request.messages[0][1]


def test_a_prompt_follows_the_corruption_and_order_of_the_condition(build_predictor, scripted, records):
    predict, record = build_predictor(), records[5]
    predict([record], noisy(("image",), 0.5, 1))
    predict([record], BACKWARDS)
    predict([record], Condition("missing", ("image",), 1.0))
    noisy_request, backwards, without_image = scripted.asked
    assert noisy_request.images != backwards.images and noisy_request.messages == (
        backwards.messages[0],
        ("user", noisy_request.messages[1][1]),
    )
    assert backwards.messages[1][1].endswith(IMAGE) and backwards.messages[1][1].startswith("<data>\ntable: ")
    assert without_image.images == () and IMAGE not in without_image.messages[1][1]


@pytest.mark.parametrize("record", [replace(Record("r", "g"), text=" ", table={}), Record("r", "g")])
def test_the_prompt_of_an_empty_record_says_that_nothing_is_known(build_predictor, scripted, record):
    assert build_predictor()([record], CLEAN).answers[0] in CLASSES
    assert EMPTY_TEXT in scripted.asked[0].messages[-1][1] and scripted.asked[0].images == ()


def test_a_prompt_has_every_picture_and_ready_descriptions_as_text(build_predictor, scripted, records):
    two_pictures = replace(records[5], image=(records[0].image, records[1].image))
    description = replace(records[5], image="a drawing of <data> tracks")
    build_predictor()([two_pictures, description], CLEAN)
    without_images, with_images = sorted(scripted.asked, key=lambda request: len(request.images))
    assert len(with_images.images) == 2 and with_images.messages[-1][1].startswith(f"{IMAGE}\n{IMAGE}\n")
    assert without_images.images == ()
    assert "image: a drawing of (data) tracks" in without_images.messages[-1][1]


@pytest.mark.parametrize("reply", ["Fruit", "{}", '{"prediction": "Berry"}', '{"prediction": null}', ""])
def test_an_invalid_answer_is_redrawn_and_then_counts_as_wrong(build_predictor, scripted, records, reply):
    scripted.reply = lambda request: reply
    prediction = build_predictor()(records[5:6], CLEAN)
    assert prediction.answers == [NO_ANSWER] and prediction.unparsed == [True]
    assert [request.attempt for request in scripted.asked] == [0, 1]
    assert scripted.asked[1].temperature >= 0.7


class TestShots:
    def test_examples_are_labelled_training_rows_with_images_in_earlier_turns(self, build_predictor, scripted, records):
        build_predictor("model.shots=3")(records[5:], CLEAN)
        for request in scripted.asked:
            roles = [role for role, _ in request.messages]
            assert roles == ["system", *["user", "assistant"] * 3, "user"] and len(request.images) == 4
            labels = [json.loads(content)["prediction"] for role, content in request.messages if role == "assistant"]
            assert sorted(labels) == sorted(CLASSES)
            for image, (_, content), label in zip(request.images, request.messages[1:-1:2], labels, strict=False):
                (row,) = (row for row in records[:5] if row.text in content)
                assert row.target == label and digest(pixels(row.image)) == image
        assert len({request.messages[:-1] for request in scripted.asked}) == 1  # one prefix for the cache

    def test_examples_do_not_depend_on_the_order_of_rows_or_the_condition(
        self, build_predictor, scripted, records, tmp_path
    ):
        build_predictor("model.shots=3", folder=tmp_path / "a")(records[5:], CLEAN)
        build_predictor("model.shots=3", train=records[4::-1], folder=tmp_path / "b")(records[5:], BACKWARDS)
        assert len({request.messages[:-1] for request in scripted.asked}) == 1

    @pytest.mark.parametrize("count", [0, 1, 4, 9])
    def test_examples_are_balanced_over_the_classes(self, count):
        rows = [Record(f"r{index}", "g", target="a" if index < 20 else "bc"[index % 2]) for index in range(30)]
        shots = few_shot_rows(rows, count, Target("class", "a", ("a", "b", "c")))
        counts = Counter(record.target for record in shots)
        assert len({record.id for record in shots}) == count
        assert max(counts.values(), default=0) - min((counts[name] for name in "abc"), default=0) <= 1

    def test_a_count_above_the_number_of_rows_returns_all_rows(self, records):
        assert len(few_shot_rows(records, 99, Target("class", "Fruit", CLASSES))) == len(records)

    def test_numbers_are_spread_over_their_range(self):
        rows = [Record(str(index), "g", target=float(index)) for index in range(100)]
        shots = few_shot_rows(rows, 4, number_target(rows, False, "d"))
        assert sorted(record.target for record in shots) == [12, 37, 62, 87]


@pytest.mark.parametrize("shots", [0, 3])
def test_the_label_of_a_predicted_row_is_never_in_a_prompt(build_predictor, scripted, records, tmp_path, shots):
    keys = []
    for number, target in enumerate((None, MARKER, "Fruit")):
        scripted.asked.clear()
        rows = [replace(record, target=target) for record in records[5:]]
        build_predictor(f"model.shots={shots}", folder=tmp_path / str(number))(rows, CLEAN)
        assert not any(MARKER in content for request in scripted.asked for _, content in request.messages)
        keys.append(sorted(request.key("") for request in scripted.asked))
    assert keys[0] == keys[1] == keys[2]


@pytest.fixture
def args(tiny_args):
    return [arg for arg in tiny_args if not arg.startswith("model.")]


@pytest.mark.parametrize(
    "extra",
    [(), ("method=mllm_fewshot",), ("data.target=price", "data.table=[city]", "data.task=number", "data.log=true")],
)
def test_a_run_on_a_prepared_store_makes_no_calls(args, scripted, monkeypatch, capsys, extra):
    monkeypatch.setattr(engines, "_engine", lambda config: scripted)
    scripted.reply = lambda request: (
        "no idea"
        if "sour" in request.messages[-1][1]
        else json.dumps({"prediction": json.loads(request.schema)["properties"]["prediction"].get("enum", [5])[0]})
    )
    config = load_config([*args, "method=mllm", *extra])
    prepare.run(config, {"dry_run": "true"})
    assert not scripted.asked
    output = " ".join(capsys.readouterr().out.split())
    prepare.run(config, {})
    first = [request for request in scripted.asked if not request.attempt]
    assert f"({len(first)} multimodal)" in output and "The prompt tokens of pictures depend" in output
    scripted.asked.clear()
    train.run(config, {})
    assert not scripted.asked
    info = json.loads((run_folder(config) / "run.json").read_text())
    assert 0 < info["unparsed"]["clean"] < 1 and info["llm"]["calls"] == 0 and info["val"]["best_score"] >= 0
    results = pd.read_parquet(run_folder(config) / "results.parquet")
    assert results[results["metric"] == info["metric"]]["value"].notna().all()


def test_a_model_without_image_input_raises_an_error(args, scripted, monkeypatch, smollm2):
    monkeypatch.setattr(engines, "_engine", lambda config: smollm2)
    with pytest.raises(UserError, match="reads no images; choose a model that does") as error:
        train.run(load_config([*args, "method=mllm"]), {})
    assert "\n" not in str(error.value)
