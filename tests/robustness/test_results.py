"""The results table on planted predictions, whose numbers are known beforehand."""

import logging

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from project.robustness.conditions import test_conditions as conditions_of_the_test
from project.robustness.results import COLUMNS, conditions_of, results_table, seen, value_table
from project.schema import Robustness
from project.target import Target

CLASSES = ["x", "y", "z"]


def planted(weakness="noisy(table", rows=30, targets=CLASSES):
    """Predictions of a model that is always right, and always wrong under conditions that begin with `weakness`."""
    found = []
    for condition in conditions_of_the_test(Robustness(levels=[0.1, 0.5], missing="single")):
        for index in range(rows):
            target = targets[index % len(targets)]
            wrong = str(condition).startswith(weakness)
            prediction = CLASSES[(index + 1) % 3] if wrong else target
            found.append(
                {
                    "record": f"r{index:03d}",
                    "group": f"g{index // 2}",
                    "condition": str(condition),
                    "kind": condition.kind,
                    "modality": condition.modality,
                    "level": condition.level,
                    "order": ",".join(condition.order),
                    "target": target,
                    "prediction": prediction,
                    "probabilities": [float(prediction == name) for name in CLASSES],
                }
            )
    return pd.DataFrame(found)


def table_of(predictions, **changes):
    target = Target(changes.pop("kind", "class"), changes.pop("constant", "x"), changes.pop("classes", tuple(CLASSES)),
                    changes.pop("log", False))
    about = {"method": "m", "data": "d", "seed": 3, "resamples": 200} | changes
    return results_table(predictions, **about, target=target)


def value(table, metric, condition, modality, level=None):
    chosen = table[(table.metric == metric) & (table.condition == condition) & (table.modality == modality)]
    chosen = chosen[chosen.level == level] if level is not None else chosen[chosen.level.isna()]
    assert len(chosen) == 1
    return chosen.iloc[0]


def test_a_planted_weakness_is_found_and_nothing_else():
    table = table_of(planted())
    for condition, modality, level in [("noisy", "table", 0.5), ("noisy", "image", 0.5), ("missing", "table", 1.0)]:
        weak = (condition, modality) == ("noisy", "table")
        row = value(table, "drop_ratio", condition, modality, level)
        assert (row.value, row.low, row.high) == ((1, 1, 1) if weak else (0, 0, 0))
        assert value(table, "chance_adjusted_drop", condition, modality, level).value == pytest.approx(1.5 * weak)
        assert value(table, "ece", condition, modality, level).value == pytest.approx(float(weak))
    drops = table[table.metric == "drop_ratio"]
    assert set(drops[drops.value > 0].modality) == {"table"}
    # The drop is 0 at level 0 and 1 at level 0.1.
    assert value(table, "breakdown_0.1", "noisy", "table").value == pytest.approx(0.01)
    assert value(table, "breakdown_0.2", "noisy", "table").value == pytest.approx(0.02)
    assert value(table, "breakdown_0.1", "noisy", "image").value == np.inf
    assert value(table, "area_under_curve", "noisy", "image").value == pytest.approx(1)
    assert value(table, "area_under_curve", "noisy", "table").value == pytest.approx(0.1)


def test_columns_and_metrics_of_each_condition():
    table = table_of(planted())
    assert list(table.columns) == COLUMNS
    assert (table.n == 30).all() and (table.seed == 3).all()
    assert set(table.condition) == {"clean", "noisy", "missing", "order"}
    assert set(table[table.condition == "clean"].metric) == {"accuracy", "macro_f1", "ece"}
    assert not table.duplicated(["condition", "modality", "level", "order", "metric"]).any()


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 1000))
def test_the_order_of_rows_changes_nothing(seed):
    predictions = planted()
    shuffled = predictions.sample(frac=1, random_state=seed)
    pd.testing.assert_frame_equal(table_of(predictions, resamples=50), table_of(shuffled, resamples=50))


def test_intervals_hold_the_value():
    predictions = planted()
    hit = np.random.default_rng(0).random(len(predictions)) < 0.6
    predictions["prediction"] = np.where(hit, predictions["target"], "x")
    table = table_of(predictions)
    bounded = table[table.metric.isin(["accuracy", "drop_ratio", "chance_adjusted_drop", "area_under_curve"])]
    assert len(bounded) and (bounded.low <= bounded.value).all() and (bounded.value <= bounded.high).all()


def test_an_unknown_class_counts_as_wrong_and_is_said(caplog):
    predictions = planted(weakness="never", targets=["x", "y", "w"])
    with caplog.at_level(logging.WARNING):
        table = table_of(predictions)
    assert value(table, "accuracy", "clean", "none", 0.0).value == pytest.approx(2 / 3)
    assert "10 of 30 test rows count as wrong: no training row has w" in caplog.text


def test_a_method_without_probabilities_has_no_calibration():
    predictions = planted().assign(probabilities=None)
    assert table_of(predictions)[lambda table: table.metric == "ece"].value.isna().all()


def test_a_missing_or_repeated_record_is_refused():
    with pytest.raises(ValueError, match="each record once"):
        table_of(planted().iloc[1:])
    with pytest.raises(ValueError, match="clean"):
        table_of(planted().query("kind != 'clean'"))
    with pytest.raises(ValueError, match="duplicate"):
        value_table(pd.concat([planted(), planted().iloc[:1]]), "accuracy")


def test_predictions_survive_parquet(tmp_path):
    planted().to_parquet(tmp_path / "predictions.parquet")
    pd.testing.assert_frame_equal(table_of(pd.read_parquet(tmp_path / "predictions.parquet")), table_of(planted()))


def test_conditions_come_in_reading_order():
    predictions = planted(rows=1)
    kinds = conditions_of(predictions.sample(frac=1, random_state=0))["kind"].tolist()
    assert kinds == sorted(kinds, key=["clean", "noisy", "missing", "order"].index)


@pytest.mark.parametrize(
    ("perturbation", "kind", "modality", "expected"),
    [
        ("none", "noisy", "text", "unseen"),
        ("paraphrase", "missing", "table", "unseen"),
        ("rules", "noisy", "table", "seen"),
        ("rules", "noisy", "image", "unseen"),
        ("rules", "noisy", "all", "partly"),
        ("rules", "missing", "image+text", "seen"),
        ("instructions", "noisy", "text", "seen"),
        ("instructions", "noisy", "table", "unseen"),
        ("instructions", "order", "none", "seen"),
        ("none", "noisy", "all", "unseen"),
        ("noise", "noisy", "all", "seen"),
        ("noise", "missing", "text", "unseen"),
        ("dropped modalities", "missing", "image+text", "seen"),
        ("noise and dropped modalities", "noisy", "image", "seen"),
    ],
)
def test_what_training_has_seen(perturbation, kind, modality, expected):
    assert seen(perturbation, kind, modality) == expected


def numbers(rows=40):
    """Predictions of prices that are right but for a factor of e under noise, in 20 groups."""
    found = []
    for condition in conditions_of_the_test(Robustness(levels=[0.5], missing="none", orders=0), ("text", "table")):
        for index in range(rows):
            target = float(10 + index)
            prediction = target * np.e if condition.kind == "noisy" else target * np.exp(0.5)
            found.append({"record": f"r{index}", "group": f"g{index % 20}", "condition": str(condition),
                          "kind": condition.kind, "modality": condition.modality, "level": condition.level,
                          "order": ",".join(condition.order), "target": target, "prediction": prediction,
                          "probabilities": None})
    return pd.DataFrame(found)


def test_a_number_is_measured_by_its_error_in_both_units_and_its_drop_in_the_learned_one():
    table = table_of(numbers(), kind="number", constant=28.0, classes=(), log=True)
    assert set(table.metric) == {"rmse_log", "rmse", "r2", "drop_ratio", "chance_adjusted_drop", "area_under_curve",
                                 "breakdown_0.1", "breakdown_0.2"}
    assert value(table, "rmse_log", "clean", "none", 0).value == pytest.approx(0.5)
    assert value(table, "rmse_log", "noisy", "all", 0.5).value == pytest.approx(1)
    drop = value(table, "drop_ratio", "noisy", "all", 0.5)
    assert (drop.value, drop.low, drop.high) == pytest.approx((0.5, 0.5, 0.5))
    error = value(table, "rmse", "clean", "none", 0)
    assert error.low < error.value < error.high


def test_ordinal_classes_are_scored_by_kappa_with_an_interval():
    predictions = planted().replace({"target": dict(zip("xyz", "012", strict=True)),
                                     "prediction": dict(zip("xyz", "012", strict=True))})
    table = table_of(predictions, kind="ordinal", constant="0", classes=("0", "1", "2"))
    kappa = value(table, "kappa", "clean", "none", 0)
    assert (kappa.value, kappa.low, kappa.high) == (1, 1, 1)
    wrong = value(table, "kappa", "noisy", "table", 0.5)
    assert wrong.low <= wrong.value <= wrong.high < 0.1
