"""The conditions of the evaluation: their names, their number and their order."""

import pytest

from project.config.compose import load_config
from project.config.schema import RobustnessConfig
from project.corruption import conditions
from project.corruption.natural import NATURAL
from project.data.record import MODALITIES
from project.errors import UserError


def condition_names(**values):
    return list(map(str, conditions.evaluation_conditions(RobustnessConfig(**values))))


def test_the_names_of_a_small_evaluation():
    assert condition_names(levels=[0.3, 1.0], missing="single", orders=1) == [
        "clean",
        "noisy(image, 0.3)",
        "noisy(image, 1)",
        "noisy(text, 0.3)",
        "noisy(text, 1)",
        "noisy(table, 0.3)",
        "noisy(table, 1)",
        "noisy(all, 0.3)",
        "noisy(all, 1)",
        "missing(image)",
        "missing(text)",
        "missing(table)",
        "order(table, text, image)",
    ]


def test_noise_all_adds_only_the_noise_on_all_modalities():
    assert condition_names(levels=[0.3, 0.5], noise="all", missing="none", orders=0) == [
        "clean",
        "noisy(all, 0.3)",
        "noisy(all, 0.5)",
    ]


def test_missing_pairs_adds_the_pairs_of_modalities():
    names = condition_names(missing="pairs")
    assert names[-8:-5] == ["missing(image, text)", "missing(image, table)", "missing(text, table)"]
    assert "order(text, image, table)" in names


@pytest.mark.parametrize(("orders", "count"), [(None, 5), (0, 0), (2, 2), (9, 5)])
def test_orders_gives_the_number_of_orders_other_than_the_usual_one(orders, count):
    tested_orders = [
        condition.order
        for condition in conditions.evaluation_conditions(RobustnessConfig(orders=orders))
        if condition.kind == "order"
    ]
    assert len(tested_orders) == len(set(tested_orders)) == count
    assert MODALITIES not in tested_orders


def test_without_corruptions_only_clean_remains():
    assert condition_names(levels=[], missing="none", orders=0) == ["clean"]


def test_natural_corruptions_need_the_configuration_and_the_modality():
    config = RobustnessConfig(levels=[], missing="none", orders=0, natural=["stale", "blur"], natural_levels=[0.3, 1])
    tested = conditions.evaluation_conditions(config)
    assert list(map(str, tested)) == [
        "clean",
        "natural(stale, 0.3)",
        "natural(stale, 1)",
        "natural(blur, 0.3)",
        "natural(blur, 1)",
    ]
    assert [(condition.modality, condition.seed) for condition in tested[1:]] == 2 * [("table", 1)] + 2 * [("image", 1)]
    assert list(map(str, conditions.evaluation_conditions(config, ("text", "table")))) == [
        "clean",
        "natural(stale, 0.3)",
        "natural(stale, 1)",
    ]


def test_the_shipped_configuration_tests_every_natural_corruption():
    assert load_config(["robustness=natural"]).robustness.natural == list(NATURAL)
    assert load_config([]).robustness == RobustnessConfig()


def test_an_unknown_natural_corruption_is_a_user_error():
    with pytest.raises(UserError, match=r"robustness.natural=.*blurr.* must be list of one of blur, "):
        load_config(["robustness.natural=[typing,blurr]"])
    with pytest.raises(UserError, match="natural_levels"):
        load_config(["robustness.natural_levels=[1.5]"])


def test_condition_names_are_unique():
    assert len(set(condition_names())) == len(condition_names()) == 1 + 4 * 5 + 6 + 5


def test_the_modality_is_one_word():
    words = {str(condition): condition.modality for condition in conditions.evaluation_conditions(RobustnessConfig())}
    assert words["clean"] == words["order(table, text, image)"] == "none"
    assert words["noisy(text, 0.1)"] == words["missing(text)"] == "text"
    assert words["noisy(all, 0.1)"] == "all"
    assert words["missing(image, table)"] == "image+table"


def test_the_validation_panel_uses_another_seed():
    config = RobustnessConfig(val_levels=[0.2, 0.4])
    panel = conditions.validation_conditions(config)
    assert list(map(str, panel)) == ["clean", "noisy(all, 0.2)", "noisy(all, 0.4)"]
    assert {condition.seed for condition in panel[1:]} == {config.val_seed}
    test_seeds = {condition.seed for condition in conditions.evaluation_conditions(config) if condition.kind == "noisy"}
    assert test_seeds == {config.seed} and config.val_seed not in test_seeds
