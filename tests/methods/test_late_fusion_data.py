"""The second view of a row is augmented at random: seeded, up to the noise level, never without any modality."""

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
from project.methods.late_fusion_data import FusionDataModule, Inputs, augment
from project.methods.tabular_features import fit_columns
from project.training.encoder import load_tokenizer

TABLE = {name: str(index) for index, name in enumerate("abcdefgh")}
RECORD = Record("r", "g", None, "one two three four five six seven eight nine ten", TABLE, "x")


@pytest.fixture
def build_data(tiny_args):
    """Return a function that builds a data module of the tiny rows with the given arguments."""

    def build(*args):
        config = load_config([*tiny_args, "method=fusion", "model.image=small", *args])
        rows = read_rows(config.data)
        inputs = Inputs(config.model, rows.modalities, fit_columns(rows.train), load_tokenizer(config.model), "cpu")
        return FusionDataModule(config, rows, inputs)

    return build


def test_without_noise_and_modality_dropout_the_second_view_is_the_record_itself():
    assert augment(RECORD, FusionConfig(), 0, 0) is RECORD


@given(st.floats(0, 1), st.floats(0, 1), st.integers(0, 5), st.integers(0, 5))
@settings(max_examples=50)
def test_augmentation_depends_on_seed_epoch_and_record_alone(noise, drop, seed, epoch):
    config = FusionConfig(noise=noise, drop_modality=drop)
    np.random.seed(seed)
    assert augment(RECORD, config, seed, epoch) == augment(RECORD, config, seed, epoch)


def test_augmentation_differs_between_epochs_seeds_and_records():
    config = FusionConfig(noise=1.0)
    views = [
        augment(replace(RECORD, id=id), config, seed, epoch)
        for id, seed, epoch in (("r", 0, 0), ("r", 0, 1), ("r", 1, 0), ("s", 0, 0))
    ]
    assert len({view.text for view in views}) == 4


@given(st.floats(0, 1), st.integers(0, 1000))
def test_dropping_modalities_never_takes_all(drop, epoch):
    assert augment(RECORD, FusionConfig(drop_modality=drop), 0, epoch).present


def test_modalities_are_dropped_with_the_configured_probability():
    views = [augment(RECORD, FusionConfig(drop_modality=0.3), 0, epoch) for epoch in range(1000)]
    # One of two modalities is dropped if one draw drops it, or if both draws do and one modality is restored.
    assert np.mean([len(view.present) < 2 for view in views]) == pytest.approx(1 - 0.7**2, abs=0.05)


def test_levels_are_uniform_up_to_the_configured_noise():
    missing_shares = [
        np.mean([cell is None for cell in augment(RECORD, FusionConfig(noise=0.6), 0, epoch).table.values()])
        for epoch in range(500)
    ]
    assert np.mean(missing_shares) == pytest.approx(0.3, abs=0.04)


def test_each_training_row_has_a_clean_and_an_augmented_view(build_data):
    data = build_data("model.noise=0.9", "model.drop_modality=0.5")
    clean, noisy = data.training_batch(0, data.rows.train[:6])["views"]
    next_clean, next_noisy = data.training_batch(1, data.rows.train[:6])["views"]
    assert torch.equal(clean["image"], next_clean["image"]) and clean["present"].all()
    assert not torch.equal(noisy["image"], next_noisy["image"]) and not noisy["present"].all()
    assert noisy["present"].any(1).all()


def test_without_augmentation_the_clean_view_is_read_twice_and_with_weight_0_once(build_data):
    data = build_data()
    first, second = data.training_batch(0, data.rows.train[:3])["views"]
    assert first is second
    assert len(build_data("perturbation.weight=0").training_batch(0, data.rows.train[:3])["views"]) == 1


def test_a_modality_is_present_if_it_has_content(build_data):
    inputs = build_data().inputs
    record = build_data().rows.train[0]
    records = [
        record,
        replace(record, image="a ready description", text=" ", table={"price": None}),
        replace(record, image=None, text=None, table=None),
    ]
    assert inputs.branches == ("image", "text", "table")
    assert inputs.view(records, records)["present"].tolist() == [[True] * 3, [False] * 3, [False] * 3]


def test_features_of_an_unchanged_picture_are_computed_once(monkeypatch, records):
    batch_sizes = []
    monkeypatch.setattr(
        image.classifier,
        "backbone_features",
        lambda images, device: (
            batch_sizes.append(len(images)) or np.stack([np.full(image.FEATURE_WIDTH, item.mean()) for item in images])
        ),
    )
    monkeypatch.setattr(image, "_CACHE", {})
    images = [records[0].image, records[0].image.copy(), None, (records[0].image, records[1].image)]
    first = image.extract_image_features(images, [True] * 4, "cpu")
    second = image.extract_image_features(images, [True] * 4, "cpu")
    np.testing.assert_array_equal(first, second)
    assert batch_sizes == [2] and np.isnan(first[2]).all()
    assert first[3, 0] == pytest.approx(np.mean([pixels(picture).mean() for picture in images[3]]))
    image.extract_image_features(images, [False] * 4, "cpu")
    assert batch_sizes == [2, 4]
