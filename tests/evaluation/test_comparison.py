"""Comparisons of generated predictions with known scores: names, pairing, crossed bootstrap, curves, endpoint."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from project.errors import UserError
from project.evaluation.comparison import compare
from project.evaluation.curves import area, breakdown, corruption_error, curves, effective_robustness_of
from project.evaluation.primary_endpoint import endpoint, holm
from project.evaluation.run_info import RunInfo
from project.evaluation.run_loading import Run, by_name
from project.metrics.bootstrap import p_value

CONDITIONS = {
    "clean": ("clean", "none", 0.0),
    "noisy(text, 0.5)": ("noisy", "text", 0.5),
    "noisy(text, 0.9)": ("noisy", "text", 0.9),
    "noisy(all, 0.5)": ("noisy", "all", 0.5),
    "noisy(all, 0.9)": ("noisy", "all", 0.9),
}


def make_run(name="plain", right=(8, 6, 4, 4, 2), seed=0, rows=10, folder="study", val=None, **info):
    """A run that is right in the first so many of each ten rows under the five conditions; five rows are a group."""
    primary = [
        {
            "record": f"r{row:03d}",
            "group": f"g{row // 5}",
            "present": "text,table",
            "corruption": "",
            "condition": condition,
            "kind": kind,
            "modality": modality,
            "level": level,
            "order": "text,table",
            "target": "x",
            "prediction": "x" if row % 10 < count else "y",
        }
        for (condition, (kind, modality, level)), count in zip(CONDITIONS.items(), right, strict=True)
        for row in range(rows)
    ]
    about = {"method": name, "name": name, "data": "toys", "seed": seed, "constant": "y", "metric": "accuracy"}
    about |= {"val": {"best_score": val}} if val is not None else {}
    folder = Path(folder) / about["name"] / f"seed-{seed}"
    return Run(folder, RunInfo.from_dict(about | info), pd.DataFrame(primary), pd.DataFrame())


def test_numbers_by_hand():
    comparison = compare([make_run(), make_run(seed=1, right=(6, 6, 4, 2, 2))], 100)
    clean = comparison.value("plain", ["clean"])
    assert (clean.value, clean.seeds) == (pytest.approx(0.7), (0.8, 0.6))
    drop = comparison.drop("plain", ["noisy(all, 0.5)"])
    assert drop.value == pytest.approx(1 - 0.3 / 0.7) and drop.seeds == pytest.approx((0.5, 1 - 0.2 / 0.6))
    assert comparison.chance == 0
    assert comparison.chance_adjusted("plain", "noisy(all, 0.5)").value == pytest.approx(drop.value)


def test_runs_of_one_name_in_two_experiments_are_not_pooled():
    runs = [make_run(), make_run(seed=1), make_run(folder="other"), make_run("ours", folder="other")]
    assert {name: len(same) for name, same in by_name(runs).items()} == {"other/plain": 1, "ours": 1, "study/plain": 2}
    assert compare(runs, 10).methods == ["other/plain", "ours", "study/plain"]


def test_experiments_in_nested_folders_have_different_names():
    runs = [make_run(folder="outputs/paper/toys"), make_run(folder="outputs/toys")]
    assert list(by_name(runs)) == ["paper/toys/plain", "toys/plain"]


def test_the_reference_and_ours_come_first_with_unchanged_runs_preferred():
    runs = [
        make_run("ours"),
        make_run("boosting"),
        make_run("plain-1f3a9c", method="plain", val=0.9),
        make_run(val=0.1),
        make_run("ours-77aa01", method="ours"),
    ]
    comparison = compare(runs, 10)
    assert comparison.methods == ["plain", "ours", "boosting", "ours-77aa01", "plain-1f3a9c"]
    assert comparison.named("fusion") is None


def test_of_two_equal_names_the_better_one_on_validation_is_selected():
    comparison = compare([make_run(val=0.3), make_run(folder="other", val=0.4)], 10)
    assert comparison.reference == "other/plain"


def test_equal_answers_have_no_difference_on_any_resample():
    comparison = compare([make_run(rows=50), make_run("twin", rows=50)], 200)
    for of in (comparison.difference, comparison.drop_difference):
        difference = of("twin", ["noisy(all, 0.5)"])
        assert (difference.value, difference.low, difference.high) == (0, 0, 0)


def test_an_interval_does_not_depend_on_the_other_methods():
    ours = [make_run("ours", seed=0, rows=50), make_run("ours", seed=1, right=(9, 5, 4, 3, 2), rows=50)]
    alone, among = compare(ours, 100), compare([*ours, make_run("boosting", rows=50), make_run(rows=50)], 100)
    assert alone.drop("ours", ["noisy(all, 0.5)"]) == among.drop("ours", ["noisy(all, 0.5)"])


def test_seeds_are_resampled_in_addition_to_groups():
    # All groups are alike, so that what is left is the seeds': a half of the resamples have one of each.
    apart = compare([make_run(right=(10, 6, 4, 4, 2)), make_run(seed=1, right=(0, 6, 4, 4, 2))], 2000)
    draws = apart.draws["plain"][:, 0]
    assert sorted(set(draws)) == [0, 0.5, 1] and np.mean(draws == 0.5) == pytest.approx(0.5, abs=0.05)
    assert apart.value("plain", ["clean"]).low == 0


def test_seeds_of_two_methods_are_drawn_independently():
    runs = [make_run(name, (10 * (1 - seed), 6, 4, 4, 2), seed) for name in ("plain", "twin") for seed in (0, 1)]
    comparison = compare(runs, 2000)
    both = np.corrcoef(comparison.draws["plain"][:, 0], comparison.draws["twin"][:, 0])
    assert abs(both[0, 1]) < 0.1


def test_runs_on_other_corruptions_or_other_metrics_are_not_compared():
    with pytest.raises(UserError, match="robustness.seed=1 and 2; report them separately"):
        compare([make_run(corruption_seed=1), make_run("ours", corruption_seed=2)], 10)
    with pytest.raises(UserError, match="accuracy and rmse"):
        compare([make_run(), make_run("ours", metric="rmse")], 10)


def test_curves_by_hand():
    comparison = compare([make_run(), make_run("fusion", (10, 10, 10, 8, 8)), make_run("ours", (10, 9, 8, 10, 10))], 50)
    text, all = curves(comparison)
    assert (text.modality, text.sort, text.levels) == ("text", "noise", (0, 0.5, 0.9)) and all.modality == "all"
    # From 0.8 over 0.6 at 0.5 to 0.4 at 0.9.
    assert area(comparison, "plain", text).value == pytest.approx((0.5 * 0.7 + 0.4 * 0.5) / 0.9)
    assert breakdown(comparison, "plain", text, 0.2).value == pytest.approx(0.4)
    assert breakdown(comparison, "ours", all, 0.1).value == math.inf
    gain = effective_robustness_of(comparison, "plain", text, "fusion")
    assert gain.value == pytest.approx(area(comparison, "plain", text).value - 1 + 0.2)
    assert effective_robustness_of(comparison, "fusion", all, "fusion").value == 0
    # Errors on text 0.1 + 0.2 over 0.4 + 0.6, on all none.
    assert corruption_error(comparison, "ours", "plain").value == pytest.approx(0.3 / 2)
    same = corruption_error(comparison, "plain", "plain")
    assert (same.value, same.low, same.high) == (1, 1, 1)


def test_the_rival_is_selected_on_validation_only():
    runs = [
        make_run("ours", (10, 6, 4, 8, 2), val=0.6),
        make_run("tamml", (10, 6, 4, 5, 2), val=0.7),
        make_run("boosting", (10, 6, 4, 9, 2), val=0.65),
        make_run(val=0.5),
        make_run("llm"),
    ]
    primary = endpoint(compare(runs, 100))
    assert (primary.condition, primary.ours, primary.validation) == ("noisy(all, 0.5)", "ours", 0.6)
    assert [contrast.rival for contrast in primary.contrasts] == ["tamml", "boosting", "plain", "llm"]
    assert primary.best.rival == "tamml"
    # Drop ratios of 0.2 and 0.5.
    assert primary.best.points.value == pytest.approx(-30) and primary.best.percent.value == pytest.approx(-60)


def test_for_an_error_the_lowest_validation_score_is_best():
    runs = [
        make_run(name, metric="rmse", val=val, constant=2.0)
        for name, val in [("ours", 1.0), ("plain", 3.0), ("boosting", 2.0)]
    ]
    for run in runs:
        run.predictions["target"], run.predictions["prediction"] = 1.0, 2.0 + run.predictions["level"]
    assert endpoint(compare(runs, 20)).best.rival == "boosting"


def test_variants_and_parts_of_ours_are_no_rivals():
    others = [
        make_run(name, method=name.split("-")[0], val=0.9) for name in ("ours_worst", "paraphrase", "ours-1f3a9c")
    ]
    assert endpoint(compare([make_run("ours", val=0.5), *others], 20)) is None
    primary = endpoint(compare([make_run("ours", val=0.5), *others, make_run(val=0.1)], 20))
    assert [contrast.rival for contrast in primary.contrasts] == ["plain"]


def test_without_ours_or_a_validation_score_there_is_no_endpoint():
    assert endpoint(compare([make_run(val=0.5), make_run("tamml", val=0.5)], 20)) is None
    assert endpoint(compare([make_run(), make_run("ours", val=0.5)], 20)).best is None


def test_a_ratio_to_zero_is_nan_and_equal_drops_are_not_significant():
    runs = [make_run(right=(8, 6, 4, 8, 2), rows=50, val=0.5), make_run("ours", (8, 6, 4, 8, 2), rows=50)]
    best = endpoint(compare(runs, 100)).best
    assert math.isnan(best.percent.value) and (best.points.value, best.p, best.adjusted) == (0, 1, 1)


def test_the_p_value_is_from_paired_resamples():
    comparison = compare(
        [make_run(right=(9, 6, 4, 4, 2), rows=60, val=0.5), make_run("ours", (9, 6, 4, 6, 2), rows=60)], 300
    )
    drop = comparison.drop_of(["noisy(all, 0.5)"])
    draws = drop(comparison.draws["ours"]) - drop(comparison.draws["plain"])
    assert endpoint(comparison).best.p == p_value(draws) < 0.05


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.3]) == [0.3] and holm([0.6, 0.7]) == [1, 1]
    np.testing.assert_allclose(holm([0.01, math.nan]), [0.02, math.nan])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_keeps_the_order_and_lies_between_the_p_value_and_bonferroni(p_values):
    adjusted, p_values = np.array(holm(p_values)), np.array(p_values)
    assert (np.diff(adjusted[np.argsort(p_values)]) >= 0).all()
    assert (adjusted >= p_values).all() and (adjusted <= np.minimum(1, len(p_values) * p_values) + 1e-12).all()
