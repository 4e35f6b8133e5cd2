"""A multimodal language model as a method: what it is shown, what it is told, and how its answers are read."""

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
from project.methods.llm_zero_shot import UNKNOWN
from project.methods.multimodal_llm import few_shot_rows, load
from project.pipeline.pipeline import NOTHING
from tests.conftest import CLASSES

MARKER = "ZQX-marker"
BACKWARDS = Condition("order", order=("table", "text", "image"))


def chosen(request) -> str:
    """An answer that depends on all that is shown, wrapped as chat models do."""
    classes = json.loads(request.schema)["properties"]["prediction"].get("enum", [0.5, 2.5])
    return f"Sure: {json.dumps({'prediction': classes[len(str(request.images) + request.messages[-1][1]) % 3]})}"


@pytest.fixture
def asking(pipeline_of, scripted, records):
    """Builds the predictor over the scripted engine; five records train, three are asked about."""
    scripted.reply = chosen

    def build(*overrides, train=None, folder=None):
        pipeline = pipeline_of("method=mllm", *overrides, folder=folder)
        train = records[:5] if train is None else train
        rows = Rows(train, [], [], Target("class", CLASSES[0], CLASSES), ("image", "text", "table"))
        return load(pipeline.config, None, pipeline, rows)

    return build


def test_the_image_itself_is_shown_with_text_and_table_as_data(asking, scripted, records):
    prediction = asking()(records[5:], CLEAN)
    assert set(prediction.answers) <= set(CLASSES) and not any(prediction.unparsed) and len(scripted.asked) == 3
    for request in scripted.asked:
        (record,) = (record for record in records if f"text: {record.text}" in request.messages[-1][1])
        assert request.images == (digest(pixels(record.image)),) and np.array_equal(
            request.pixels[0], pixels(record.image)
        )
        first, *rest = request.messages[-1][1].split("\n")
        assert first == IMAGE and rest.count("<data>") == rest.count("</data>") == 2
        assert "What is it?" in request.messages[0][1] and "; ".join(CLASSES) in request.messages[0][1]


def test_it_sees_what_the_condition_leaves_in_the_order_of_the_condition(asking, scripted, records):
    predict, record = asking(), records[5]
    predict([record], noisy(("image",), 0.5, 1))
    predict([record], BACKWARDS)
    predict([record], Condition("missing", ("image",), 1.0))
    noisy_one, backwards, blind = scripted.asked
    assert noisy_one.images != backwards.images and noisy_one.messages == (
        backwards.messages[0],
        ("user", noisy_one.messages[1][1]),
    )
    assert backwards.messages[1][1].endswith(IMAGE) and backwards.messages[1][1].startswith("<data>\ntable: ")
    assert blind.images == () and IMAGE not in blind.messages[1][1]


@pytest.mark.parametrize("nothing", [replace(Record("r", "g"), text=" ", table={}), Record("r", "g")])
def test_a_record_of_which_nothing_is_known_is_asked_about_as_such(asking, scripted, nothing):
    assert asking()([nothing], CLEAN).answers[0] in CLASSES
    assert NOTHING in scripted.asked[0].messages[-1][1] and scripted.asked[0].images == ()


def test_several_pictures_and_ready_descriptions_are_shown_as_what_they_are(asking, scripted, records):
    two = replace(records[5], image=(records[0].image, records[1].image))
    told = replace(records[5], image="a drawing of <data> tracks")
    asking()([two, told], CLEAN)
    one, other = sorted(scripted.asked, key=lambda request: len(request.images))
    assert len(other.images) == 2 and other.messages[-1][1].startswith(f"{IMAGE}\n{IMAGE}\n")
    assert one.images == () and "image: a drawing of (data) tracks" in one.messages[-1][1]


@pytest.mark.parametrize("reply", ["Fruit", "{}", '{"prediction": "Berry"}', '{"prediction": null}', ""])
def test_an_answer_that_is_none_of_the_classes_is_drawn_again_and_then_wrong(asking, scripted, records, reply):
    scripted.reply = lambda request: reply
    prediction = asking()(records[5:6], CLEAN)
    assert prediction.answers == [UNKNOWN] and prediction.unparsed == [True]
    assert [request.attempt for request in scripted.asked] == [0, 1]
    assert scripted.asked[1].temperature >= 0.7


class TestShots:
    def test_examples_are_training_rows_with_images_and_labels_as_earlier_turns(self, asking, scripted, records):
        asking("model.shots=3")(records[5:], CLEAN)
        for request in scripted.asked:
            roles = [role for role, _ in request.messages]
            assert roles == ["system", *["user", "assistant"] * 3, "user"] and len(request.images) == 4
            said = [json.loads(content)["prediction"] for role, content in request.messages if role == "assistant"]
            assert sorted(said) == sorted(CLASSES)
            for digested, (_, content), answer in zip(request.images, request.messages[1:-1:2], said, strict=False):
                (row,) = (row for row in records[:5] if row.text in content)
                assert row.target == answer and digest(pixels(row.image)) == digested
        assert len({request.messages[:-1] for request in scripted.asked}) == 1  # one prefix for the cache

    def test_they_do_not_depend_on_the_order_of_the_rows_or_the_condition(self, asking, scripted, records, tmp_path):
        asking("model.shots=3", folder=tmp_path / "a")(records[5:], CLEAN)
        asking("model.shots=3", train=records[4::-1], folder=tmp_path / "b")(records[5:], BACKWARDS)
        assert len({request.messages[:-1] for request in scripted.asked}) == 1

    @pytest.mark.parametrize("count", [0, 1, 4, 9])
    def test_classes_are_as_balanced_as_can_be(self, count):
        rows = [Record(f"r{index}", "g", target="a" if index < 20 else "bc"[index % 2]) for index in range(30)]
        found = few_shot_rows(rows, count, Target("class", "a", ("a", "b", "c")))
        counts = Counter(record.target for record in found)
        assert len({record.id for record in found}) == count
        assert max(counts.values(), default=0) - min((counts[name] for name in "abc"), default=0) <= 1

    def test_more_than_there_are_is_all_there_are(self, records):
        assert len(few_shot_rows(records, 99, Target("class", "Fruit", CLASSES))) == len(records)

    def test_numbers_are_spread_over_their_range(self):
        rows = [Record(str(index), "g", target=float(index)) for index in range(100)]
        found = few_shot_rows(rows, 4, number_target(rows, False, "d"))
        assert sorted(record.target for record in found) == [12, 37, 62, 87]


@pytest.mark.parametrize("shown", [0, 3])
def test_the_label_of_a_row_that_is_asked_about_never_reaches_a_prompt(asking, scripted, records, tmp_path, shown):
    seen = []
    for number, target in enumerate((None, MARKER, "Fruit")):
        scripted.asked.clear()
        rows = [replace(record, target=target) for record in records[5:]]
        asking(f"model.shots={shown}", folder=tmp_path / str(number))(rows, CLEAN)
        assert not any(MARKER in content for request in scripted.asked for _, content in request.messages)
        seen.append(sorted(request.key("") for request in scripted.asked))
    assert seen[0] == seen[1] == seen[2]


@pytest.fixture
def args(tiny_args):
    return [arg for arg in tiny_args if not arg.startswith("model.")]


@pytest.mark.parametrize(
    "extra",
    [(), ("method=mllm_fewshot",), ("data.target=price", "data.table=[city]", "data.task=number", "data.log=true")],
)
def test_a_whole_run_from_a_prepared_store(args, scripted, monkeypatch, capsys, extra):
    monkeypatch.setattr(engines, "_engine", lambda config: scripted)
    scripted.reply = lambda request: (
        "no idea"
        if "sour" in request.messages[-1][1]
        else json.dumps({"prediction": json.loads(request.schema)["properties"]["prediction"].get("enum", [5])[0]})
    )
    config = load_config([*args, "method=mllm", *extra])
    prepare.run(config, {"dry_run": "true"})
    assert not scripted.asked
    told = " ".join(capsys.readouterr().out.split())
    prepare.run(config, {})
    first = [request for request in scripted.asked if not request.attempt]
    assert f"({len(first)} multimodal)" in told and "What pictures take in prompt tokens" in told
    scripted.asked.clear()
    train.run(config, {})
    assert not scripted.asked
    info = json.loads((run_folder(config) / "run.json").read_text())
    assert 0 < info["unparsed"]["clean"] < 1 and info["llm"]["calls"] == 0 and info["val"]["best_score"] >= 0
    results = pd.read_parquet(run_folder(config) / "results.parquet")
    assert results[results["metric"] == info["metric"]]["value"].notna().all()


def test_a_model_that_reads_no_images_is_named_in_one_line(args, scripted, monkeypatch, smollm2):
    monkeypatch.setattr(engines, "_engine", lambda config: smollm2)
    with pytest.raises(UserError, match="reads no images; choose a model that does") as error:
        train.run(load_config([*args, "method=mllm"]), {})
    assert "\n" not in str(error.value)
