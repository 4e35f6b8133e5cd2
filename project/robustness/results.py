"""From predictions, one row a record and condition, to the table of results, one row a condition and metric."""

import logging
from typing import Literal

import numpy as np
import pandas as pd

from . import scores
from .bootstrap import group_weights, interval, resampled_accuracy

log = logging.getLogger(__name__)

COLUMNS = ["method", "data", "condition", "modality", "level", "order", "seed", "metric", "value", "low", "high", "n"]
BOOTSTRAP_SEED = 0
"""The same for every run, so that all methods are measured on the same resampled groups."""
THRESHOLDS = (0.1, 0.2)
"""Drop ratios that count as a breakdown."""

_KINDS = ["clean", "noisy", "missing", "order"]
_MODALITIES = ["none", "image", "text", "table", "image+text", "image+table", "text+table", "all"]


def seen(perturbation: str, kind: str, modality: str) -> Literal["seen", "partly", "unseen"]:
    """Whether training with this perturbation showed the model corruptions of the tested sort.

    Rules drop words and columns, take modalities away and change their order; instructions let an LLM do the like
    to a text, where a table's columns are no longer apart; paraphrases damage nothing. No perturbation of texts
    adds noise to pixels, so noise on all modalities is seen in part. Raises KeyError for another perturbation.
    """
    trained = {
        "none": {},
        "paraphrase": {},
        "rules": {"noisy": {"text", "table"}, "missing": None, "order": None},
        "instructions": {"noisy": {"text"}, "missing": None, "order": None},
    }[perturbation]
    if kind not in trained:
        return "unseen"
    if trained[kind] is None or modality in trained[kind]:
        return "seen"
    return "partly" if modality == "all" else "unseen"


def conditions_of(predictions: pd.DataFrame) -> pd.DataFrame:
    """The conditions of some predictions: kind, modality, level and order, indexed by the condition's name.

    Clean comes first, then noise by modality and level, missing modalities, and orders. Rows that differ in
    nothing but their record make one condition.
    """
    table = predictions.drop_duplicates("condition").set_index("condition")[["kind", "modality", "level", "order"]]
    rank = {"kind": _KINDS, "modality": _MODALITIES}
    return table.sort_values(
        ["kind", "modality", "level", "order"],
        key=lambda column: (
            column.map(lambda name: (rank[column.name] + [name]).index(name)) if column.name in rank else column
        ),
    )


def correct_table(predictions: pd.DataFrame, classes: list[str] | None = None) -> pd.DataFrame:
    """Which prediction is right: 0 or 1, a row per record (sorted) and a column per condition.

    A target that is not among `classes` is unknown to the model and counts as wrong. A record and condition that
    are not there have NaN; one that is there twice is a ValueError.
    """
    correct = predictions["target"] == predictions["prediction"]
    if classes is not None:
        correct &= predictions["target"].isin(classes)
    return predictions.assign(correct=correct.astype(float)).pivot(
        index="record", columns="condition", values="correct"
    )


def _calibration(rows: pd.DataFrame, classes: list[str]) -> float:
    if rows["probabilities"].isna().any():
        return float("nan")
    targets = rows["target"].map({name: index for index, name in enumerate(classes)}).fillna(-1)
    return scores.expected_calibration_error(targets.to_numpy(), np.stack(rows["probabilities"].tolist()))


def results_table(
    predictions: pd.DataFrame,
    *,
    method: str,
    data: str,
    seed: int,
    train_majority: str,
    resamples: int,
    classes: list[str],
) -> pd.DataFrame:
    """All metrics of one run, in the columns `COLUMNS`.

    `predictions` has the columns record, group, condition, kind, modality, level, order, target, prediction and
    probabilities (a list in the order of `classes`, or null where the method gives none, whose `ece` is NaN).
    `value`, `low` and `high` are shares in [0, 1], drops at most 1, and for `breakdown_*` noise levels (`inf`: not
    reached at any tested level). `low` and `high` are the 95 % interval over `resamples` resampled groups, NaN
    where a metric has none. The numbers do not depend on the order of the rows. Raises ValueError where the clean
    condition or a record of a condition is not there.
    """
    predictions = predictions.sort_values(["condition", "record"])
    conditions = conditions_of(predictions)
    correct = correct_table(predictions, classes).reindex(columns=conditions.index)
    if "clean" not in conditions.index or correct.isna().any(axis=None):
        raise ValueError("predictions must hold the clean condition, and each record once in each condition")
    clean_rows = predictions[predictions["condition"] == "clean"]
    unknown = ~clean_rows["target"].isin(classes)
    if unknown.any():
        names = ", ".join(sorted(set(clean_rows["target"][unknown])))
        log.warning("%d of %d test rows count as wrong: no training row has %s", unknown.sum(), len(unknown), names)

    majority = (clean_rows["target"] == train_majority).to_numpy(float)
    weights = group_weights(clean_rows["group"], resamples, BOOTSTRAP_SEED)
    drawn = pd.DataFrame(resampled_accuracy(correct, weights), columns=conditions.index)
    drawn_chance = resampled_accuracy(majority, weights)
    accuracy = correct.mean()
    chance = scores.chance(clean_rows["target"], train_majority)
    by_condition = dict(list(predictions.groupby("condition")))

    found: list[dict] = []

    def add(condition: dict, metric: str, value: float, draws: np.ndarray | None = None) -> None:
        low, high = (float("nan"),) * 2 if draws is None else interval(draws)
        found.append({**condition, "metric": metric, "value": float(value), "low": low, "high": high})

    for name, condition in conditions.iterrows():
        about = {"condition": condition["kind"], **condition[["modality", "level", "order"]]}
        rows = by_condition[name]
        add(about, "accuracy", accuracy[name], drawn[name])
        add(about, "macro_f1", scores.macro_f1(rows["target"], rows["prediction"]))
        add(about, "ece", _calibration(rows, classes))
        if name == "clean":
            continue
        pair, drawn_pair = (accuracy["clean"], accuracy[name]), (drawn["clean"], drawn[name])
        add(about, "drop_ratio", scores.drop_ratio(*pair), scores.drop_ratio(*drawn_pair))
        add(
            about,
            "chance_adjusted_drop",
            scores.chance_adjusted_drop(*pair, chance),
            scores.chance_adjusted_drop(*drawn_pair, drawn_chance),
        )

    for modality, noisy in conditions[conditions["kind"] == "noisy"].groupby("modality", sort=False):
        about = {"condition": "noisy", "modality": modality, "level": float("nan"), "order": noisy["order"].iloc[0]}
        names = [name for name in noisy.index if noisy["level"][name] > 0]
        curve, levels = ["clean", *names], [0.0, *noisy["level"][names]]
        area = scores.area_under_curve(levels, accuracy[curve])
        add(about, "area_under_curve", area, scores.area_under_curve(levels, drawn[curve].to_numpy()))
        drops = scores.drop_ratio(accuracy["clean"], accuracy[names])
        for threshold in THRESHOLDS:
            add(about, f"breakdown_{threshold:g}", scores.breakdown_level(levels[1:], drops, threshold))

    table = pd.DataFrame(found).assign(method=method, data=data, seed=seed, n=len(correct))
    return table[COLUMNS].astype({"level": float, "n": int, "seed": int})
