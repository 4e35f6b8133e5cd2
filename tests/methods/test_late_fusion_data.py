"""The second view of a row is damaged by chance alone: seeded, within its level, never without a modality left."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from project.config.compose import load_config
from project.config.schema import FusionConfig
from project.data.images import pixels
from project.data.record import Record
from project.data.rows import read_rows
from project.methods import image_features as image
from project.methods.late_fusion_data import FusionDataModule, Inputs, damaged
from project.methods.tabular_features import fit_columns
from project.training.encoder import load_tokenizer

TABLE = {name: str(index) for index, name in enumerate("abcdefgh")}
RECORD = Record("r", "g", None, "one two three four five six seven eight nine ten", TABLE, "x")


@pytest.fixture
def made(tiny_args):
    """A data module over the tiny rows, under further arguments."""

    def make(*args):
        config = load_config([*tiny_args, "method=fusion", "model.image=small", *args])
        rows = read_rows(config.data)
        inputs = Inputs(config.model, rows.modalities, fit_columns(rows.train), load_tokenizer(config.model), "cpu")
        return FusionDataModule(config, rows, inputs)

    return make


def test_without_noise_and_drops_the_second_view_is_the_record_itself():
    assert damaged(RECORD, FusionConfig(), 0, 0) is RECORD


@given(st.floats(0, 1), st.floats(0, 1), st.integers(0, 5), st.integers(0, 5))
@settings(max_examples=50)
def test_damage_depends_on_seed_epoch_and_record_alone(noise, drop, seed, epoch):
    config = FusionConfig(noise=noise, drop_modality=drop)
    np.random.seed(seed)
    assert damaged(RECORD, config, seed, epoch) == damaged(RECORD, config, seed, epoch)


def test_damage_differs_between_epochs_seeds_and_records():
    config = FusionConfig(noise=1.0)
    views = [
        damaged(replace(RECORD, id=id), config, seed, epoch)
        for id, seed, epoch in (("r", 0, 0), ("r", 0, 1), ("r", 1, 0), ("s", 0, 0))
    ]
    assert len({view.text for view in views}) == 4


@given(st.floats(0, 1), st.integers(0, 1000))
def test_dropping_modalities_never_takes_all(drop, epoch):
    assert damaged(RECORD, FusionConfig(drop_modality=drop), 0, epoch).present


def test_modalities_are_dropped_as_often_as_asked_for():
    views = [damaged(RECORD, FusionConfig(drop_modality=0.3), 0, epoch) for epoch in range(1000)]
    # Of two modalities one is dropped where one draw of two says so, or where both do and one is given back.
    assert np.mean([len(view.present) < 2 for view in views]) == pytest.approx(1 - 0.7**2, abs=0.05)


def test_levels_are_drawn_up_to_the_noise():
    lost = [
        np.mean([cell is None for cell in damaged(RECORD, FusionConfig(noise=0.6), 0, epoch).table.values()])
        for epoch in range(500)
    ]
    assert np.mean(lost) == pytest.approx(0.3, abs=0.04)


def test_each_training_row_is_read_in_two_views_with_the_clean_one_first(made):
    data = made("model.noise=0.9", "model.drop_modality=0.5")
    clean, noisy = data.training_batch(0, data.rows.train[:6])["views"]
    again, later = data.training_batch(1, data.rows.train[:6])["views"]
    assert torch.equal(clean["image"], again["image"]) and clean["present"].all()
    assert not torch.equal(noisy["image"], later["image"]) and not noisy["present"].all()
    assert noisy["present"].any(1).all()


def test_without_damage_the_clean_view_is_read_twice_and_without_weight_once(made):
    data = made()
    first, second = data.training_batch(0, data.rows.train[:3])["views"]
    assert first is second
    assert len(made("perturbation.weight=0").training_batch(0, data.rows.train[:3])["views"]) == 1


def test_a_modality_is_present_where_there_is_something_to_read(made):
    inputs = made().inputs
    own = made().rows.train[0]
    seen = [
        own,
        replace(own, image="a ready description", text=" ", table={"price": None}),
        replace(own, image=None, text=None, table=None),
    ]
    assert inputs.branches == ("image", "text", "table")
    assert inputs.view(seen, seen)["present"].tolist() == [[True] * 3, [False] * 3, [False] * 3]


def test_features_of_a_picture_as_it_is_are_computed_once(monkeypatch, records):
    looks = []
    monkeypatch.setattr(
        image.classifier,
        "backbone_features",
        lambda images, device: (
            looks.append(len(images)) or np.stack([np.full(image.WIDTH, shown.mean()) for shown in images])
        ),
    )
    monkeypatch.setattr(image, "_KEPT", {})
    shown = [records[0].image, records[0].image.copy(), None, (records[0].image, records[1].image)]
    first = image.extract_image_features(shown, [True] * 4, "cpu")
    again = image.extract_image_features(shown, [True] * 4, "cpu")
    np.testing.assert_array_equal(first, again)
    assert looks == [2] and np.isnan(first[2]).all()
    assert first[3, 0] == pytest.approx(np.mean([pixels(one).mean() for one in shown[3]]))
    image.extract_image_features(shown, [False] * 4, "cpu")
    assert looks == [2, 4]
