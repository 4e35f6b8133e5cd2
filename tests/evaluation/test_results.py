"""The results table on planted predictions, whose numbers are known in advance."""

import logging

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from project.config.schema import RobustnessConfig
from project.corruption.conditions import evaluation_conditions
from project.corruption.natural import NATURAL
from project.data.target import Target
from project.evaluation.results import (
    COLUMNS,
    by_presence,
    conditions_of,
    results_table,
    training_exposure,
    value_table,
)
from project.evaluation.tracking import summary

CLASSES = ["x", "y", "z"]


def planted(weakness="noisy(table", rows=30, targets=CLASSES, **natural):
    """Predictions of a model that is always right, and always wrong under conditions that begin with `weakness`."""
    found = []
    for condition in evaluation_conditions(RobustnessConfig(levels=[0.1, 0.5], missing="single", **natural)):
        for index in range(rows):
            target = targets[index % len(targets)]
            wrong = str(condition).startswith(weakness)
            prediction = CLASSES[(index + 1) % 3] if wrong else target
            found.append(
                {
                    "record": f"r{index:03d}",
                    "group": f"g{index // 2}",
                    "present": "image,text,table",
                    "condition": str(condition),
                    "kind": condition.kind,
                    "corruption": condition.corruption,
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
    target = Target(
        changes.pop("kind", "class"),
        changes.pop("constant", "x"),
        changes.pop("classes", tuple(CLASSES)),
        changes.pop("log", False),
    )
    about = {"method": "m", "data": "d", "seed": 3, "resamples": 200} | changes
    return results_table(predictions, **about, target=target)


def value(table, metric, condition, modality, level=None, corruption=""):
    chosen = table[(table.metric == metric) & (table.condition == condition) & (table.modality == modality)]
    chosen = chosen[chosen.corruption == corruption]
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
    assert not table.duplicated(["condition", "corruption", "modality", "level", "order", "metric"]).any()


@settings(max_examples=10)
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


def test_an_unknown_class_counts_as_wrong_with_a_warning(caplog):
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
    predictions = planted(rows=1, natural=["stale", "typing", "jpeg", "blur"], natural_levels=[0.7, 0.3])
    found = conditions_of(predictions.sample(frac=1, random_state=0))
    kinds = found["kind"].tolist()
    assert kinds == sorted(kinds, key=["clean", "noisy", "missing", "order", "natural"].index)
    assert found.index[found["kind"] == "natural"].tolist() == [
        f"natural({name}, {level})" for name in ("blur", "jpeg", "typing", "stale") for level in (0.3, 0.7)
    ]


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
        ("all", "noisy", "text", "seen"),
        ("all", "missing", "table", "seen"),
        ("freelb", "noisy", "all", "unseen"),
        ("none", "noisy", "all", "unseen"),
        ("noise", "noisy", "all", "seen"),
        ("noise", "missing", "text", "unseen"),
        ("dropped modalities", "missing", "image+text", "seen"),
        ("noise and dropped modalities", "noisy", "image", "seen"),
    ],
)
def test_training_exposure(perturbation, kind, modality, expected):
    assert training_exposure(perturbation, kind, modality) == expected


@pytest.mark.parametrize(
    ("corruption", "by_rules", "by_instructions"),
    [
        ("blur", "unseen", "unseen"),
        ("typing", "unseen", "seen"),
        ("ocr", "unseen", "seen"),
        ("truncation", "partly", "seen"),
        ("units", "unseen", "unseen"),
        ("stale", "unseen", "unseen"),
    ],
)
def test_training_exposure_to_realistic_corruptions(corruption, by_rules, by_instructions):
    expected = {"none": "unseen", "paraphrase": "unseen", "rules": by_rules, "instructions": by_instructions}
    modality = NATURAL[corruption].modality
    assert {name: training_exposure(name, "natural", modality, corruption) for name in expected} == expected


def test_a_planted_weakness_to_one_realistic_corruption_is_found_and_nothing_else():
    table = table_of(planted("natural(typing", natural=["blur", "typing", "ocr"], natural_levels=[0.2, 0.4]))
    drops = table[table.metric == "drop_ratio"]
    assert set(drops[drops.value > 0].corruption) == {"typing"}
    assert value(table, "breakdown_0.1", "natural", "text", corruption="typing").value == pytest.approx(0.02)
    assert value(table, "area_under_curve", "natural", "text", corruption="typing").value == pytest.approx(0.25)
    assert value(table, "area_under_curve", "natural", "text", corruption="ocr").value == pytest.approx(1)
    assert value(table, "accuracy", "natural", "image", 0.4, "blur").value == 1


def test_one_level_of_a_realistic_corruption_makes_no_curve():
    table = table_of(planted(natural=["blur"], natural_levels=[0.5]))
    natural = table[table.condition == "natural"]
    assert "drop_ratio" in set(natural.metric) and natural.level.eq(0.5).all()


def with_gaps(lacking):
    """Predictions of a model that is wrong on rows without an image; `lacking` of 30 rows lack theirs."""
    predictions = planted(weakness="never")
    gap = predictions["record"].str[1:].astype(int) < lacking
    wrong = predictions["target"].map({"x": "y", "y": "z", "z": "x"})
    return predictions.assign(
        present=np.where(gap, "text,table", "image,text,table"), prediction=np.where(gap, wrong, predictions["target"])
    )


def test_rows_that_lack_a_modality_are_scored_separately():
    table = table_of(with_gaps(10))
    genuine = table[table.condition == "genuine"].set_index("modality")
    assert genuine[["value", "low", "high", "n"]].T.to_dict("list") == {"none": [1, 1, 1, 20], "image": [0, 0, 0, 10]}
    assert set(genuine.metric) == {"accuracy"}
    assert (table[table.condition != "genuine"].n == 30).all()


@pytest.mark.parametrize("lacking", [0, 4, 26, 30])
def test_few_rows_on_either_side_are_not_scored_separately(lacking):
    assert "genuine" not in set(table_of(with_gaps(lacking)).condition)


def test_rows_are_named_by_all_missing_modalities():
    held = ["image,text,table"] * 5 + ["text"] * 6 + ["image,text"] * 7 + ["table"] * 3 + [""] * 5
    masks = by_presence(pd.DataFrame({"present": held}))
    assert {names: int(rows.sum()) for names, rows in masks.items()} == {
        "none": 5,
        "table": 7,
        "image+table": 6,
        "image+text+table": 5,
    }
    assert list(masks)[:2] == ["none", "table"]


def test_the_summary_names_every_kind_of_condition():
    predictions = with_gaps(10)
    damaged = planted(weakness="never", natural=["blur"], natural_levels=[0.5]).query("kind == 'natural'")
    flat = summary(table_of(pd.concat([predictions, damaged])), "accuracy")
    assert {
        "test/drop_ratio/natural/blur/0.5",
        "test/accuracy/genuine/image",
        "test/accuracy/genuine/none",
        "test/accuracy/clean",
        "test/drop_ratio/missing/text",
    } <= set(flat)


def numbers(rows=40):
    """Predictions of prices that are right but for a factor of e under noise, in 20 groups."""
    found = []
    for condition in evaluation_conditions(RobustnessConfig(levels=[0.5], missing="none", orders=0), ("text", "table")):
        for index in range(rows):
            target = float(10 + index)
            prediction = target * np.e if condition.kind == "noisy" else target * np.exp(0.5)
            found.append(
                {
                    "record": f"r{index}",
                    "group": f"g{index % 20}",
                    "present": "text,table",
                    "condition": str(condition),
                    "kind": condition.kind,
                    "corruption": condition.corruption,
                    "modality": condition.modality,
                    "level": condition.level,
                    "order": ",".join(condition.order),
                    "target": target,
                    "prediction": prediction,
                    "probabilities": None,
                }
            )
    return pd.DataFrame(found)


def test_a_number_is_measured_by_its_error_in_both_units_and_its_drop_in_the_learned_one():
    table = table_of(numbers(), kind="number", constant=28.0, classes=(), log=True)
    assert set(table.metric) == {
        "rmse_log",
        "rmse",
        "r2",
        "drop_ratio",
        "chance_adjusted_drop",
        "area_under_curve",
        "breakdown_0.1",
        "breakdown_0.2",
    }
    assert value(table, "rmse_log", "clean", "none", 0).value == pytest.approx(0.5)
    assert value(table, "rmse_log", "noisy", "all", 0.5).value == pytest.approx(1)
    drop = value(table, "drop_ratio", "noisy", "all", 0.5)
    assert (drop.value, drop.low, drop.high) == pytest.approx((0.5, 0.5, 0.5))
    error = value(table, "rmse", "clean", "none", 0)
    assert error.low < error.value < error.high


def test_ordinal_classes_are_scored_by_kappa_with_an_interval():
    predictions = planted().replace(
        {"target": dict(zip("xyz", "012", strict=True)), "prediction": dict(zip("xyz", "012", strict=True))}
    )
    table = table_of(predictions, kind="ordinal", constant="0", classes=("0", "1", "2"))
    kappa = value(table, "kappa", "clean", "none", 0)
    assert (kappa.value, kappa.low, kappa.high) == (1, 1, 1)
    wrong = value(table, "kappa", "noisy", "table", 0.5)
    assert wrong.low <= wrong.value <= wrong.high < 0.1


def split_by_llm(right, wrong, silent=0):
    """Predictions of a model that follows the language model where it was right, and is right a third of the time
    elsewhere; `silent` rows have no prediction of it."""
    rows = right + wrong + silent
    predictions = planted("never", rows=rows)
    number = predictions["record"].str[1:].astype(int)
    off = np.array(CLASSES)[(number + 1) % 3]
    said = predictions["target"].where(number < right, off).where(number < right + wrong, None)
    found = predictions["target"].where((number < right) | (number % 3 == 0), off)
    return predictions.assign(llm_prediction=said, prediction=found)


def test_scores_are_split_by_whether_the_language_model_was_right():
    table = table_of(split_by_llm(12, 9, silent=9))
    right, wrong = (value(table, f"accuracy_llm_{part}", "noisy", "text", 0.5) for part in ("right", "wrong"))
    assert (right.value, right.n, wrong.value, wrong.n) == (1, 12, pytest.approx(1 / 3), 9)
    assert wrong.low <= wrong.value <= wrong.high
    assert set(table[~table.metric.str.startswith("accuracy_llm")].n) == {30}


@pytest.mark.parametrize(
    ("right", "wrong", "expected_n"), [(5, 5, True), (4, 20, False), (20, 4, False), (0, 0, False)]
)
def test_a_part_with_few_rows_has_no_score(right, wrong, expected_n):
    table = table_of(split_by_llm(right, wrong, silent=3))
    assert ("accuracy_llm_right" in set(table.metric)) == ("accuracy_llm_wrong" in set(table.metric)) == expected_n


def test_an_unparsed_ordinal_answer_counts_as_the_farthest_class():
    ordered = dict(zip("xyz", "012", strict=True))
    predictions = planted("noisy(table").replace({"target": ordered, "prediction": ordered})
    silent = predictions["kind"].eq("noisy") & predictions["record"].isin(["r000", "r002"])
    opposite = predictions["prediction"].where(~silent, predictions["target"].map({"0": "2", "2": "0"}))
    tables = [
        table_of(predictions.assign(prediction=found), kind="ordinal", constant="0", classes=("0", "1", "2"))
        for found in (predictions["prediction"].where(~silent, ""), opposite)
    ]
    for metric in ("kappa", "accuracy"):
        one, other = (table[table.metric == metric] for table in tables)
        pd.testing.assert_frame_equal(one, other)


def test_the_attack_is_a_separate_condition():
    predictions = planted("never")
    clean = predictions[predictions["condition"] == "clean"]
    both = pd.concat([clean.assign(condition="attack", kind="attack", prediction="z"), predictions])
    assert value(table_of(both), "drop_ratio", "attack", "none", 0.0).value == pytest.approx(2 / 3)
    assert conditions_of(both).index[-1] == "attack"
