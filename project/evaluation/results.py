"""Compute the table of results (one row per condition and metric) from predictions (one per record and condition)."""

import logging
from itertools import combinations
from typing import Literal

import numpy as np
import pandas as pd

from ..corruption.natural import NATURAL
from ..data.record import MODALITIES
from ..data.target import Target
from ..metrics import scores
from ..metrics.bootstrap import group_weights, interval, resampled_mean
from ..metrics.scores import SCORES

log = logging.getLogger(__name__)

COLUMNS = [
    "method",
    "data",
    "condition",
    "corruption",
    "modality",
    "level",
    "order",
    "seed",
    "metric",
    "value",
    "low",
    "high",
    "n",
]
BOOTSTRAP_SEED = 0
"""Equal for all runs, so that all methods are measured on the same resampled groups."""
THRESHOLDS = (0.1, 0.2)
"""Drop ratios that count as a breakdown."""
LEAST_ROWS = 5
"""Subsets of the rows, such as those that lack a modality, are scored separately if they have this many rows."""

CURVE = ["kind", "corruption", "modality"]
"""Columns that are equal for conditions that differ only in their level."""

_KINDS = ["clean", "noisy", "missing", "order", "natural", "attack"]
_MODALITIES = ["none", *MODALITIES, *map("+".join, combinations(MODALITIES, 2)), "all"]


def training_exposure(
    perturbation: str, kind: str, modality: str, corruption: str = ""
) -> Literal["seen", "partly", "unseen"]:
    """Return whether training with this perturbation contained corruptions of the tested kind.

    - rules drop words, columns and modalities, and change their order. They drop words anywhere, which partly covers
      truncation.
    - instructions, and `all`, which draws from them, let an LLM do the same to a text, in which the columns of a table
      are not separate. Some ask for typing errors, for badly scanned text, or for the first half only.
    - paraphrases and FreeLB corrupt nothing.
    - fusion may be trained with the tested noise on all modalities, and with missing modalities.

    No perturbation of texts adds noise to pixels, so noise on all modalities is partly covered. Raises KeyError for
    another perturbation.
    """
    by_instructions = {"noisy": {"text"}, "missing": None, "order": None, "natural": {"typing", "ocr", "truncation"}}
    trained = {
        "none": {},
        "freelb": {},
        "paraphrase": {},
        "rules": {"noisy": {"text", "table"}, "missing": None, "order": None, "natural": set()},
        "instructions": by_instructions,
        "all": by_instructions,
        "noise": {"noisy": None},
        "dropped modalities": {"missing": None},
        "noise and dropped modalities": {"noisy": None, "missing": None},
    }[perturbation]
    if kind not in trained:
        return "unseen"
    if trained[kind] is None or (corruption or modality) in trained[kind]:
        return "seen"
    return "partly" if modality == "all" or corruption == "truncation" else "unseen"


def conditions_of(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return the conditions of predictions: kind, modality, corruption, level and order, indexed by name.

    Clean is first, then noise by modality and level, missing modalities, orders, realistic corruptions, and the attack.
    """
    columns = ["kind", "modality", "corruption", "level", "order"]
    table = predictions.drop_duplicates("condition").set_index("condition")[columns]
    rank = {"kind": _KINDS, "modality": _MODALITIES, "corruption": list(NATURAL)}
    return table.sort_values(
        columns,
        key=lambda column: (
            column.map(lambda name: (rank[column.name] + [name]).index(name)) if column.name in rank else column
        ),
    )


def value_table(predictions: pd.DataFrame, metric: str, classes: list[str] | None = None) -> pd.DataFrame:
    """Return each row's contribution to the mean of a score: one row per record (sorted), one column per condition.

    A target that is not among `classes` is unknown to the model and counts as wrong. A missing record and condition is
    NaN. Raises ValueError if a record occurs twice in a condition.
    """
    values = SCORES[metric].of_rows(predictions["target"], predictions["prediction"])
    if classes:
        values = values * predictions["target"].isin(classes).to_numpy()
    return predictions.assign(value=values).pivot(index="record", columns="condition", values="value")


def by_presence(clean: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return masks of shape (rows,) for the complete rows and those that lack modalities, by the missing modalities.

    `clean` are the predictions under the clean condition. "none" is first, then names such as image or image+text. A
    complete row has every modality that any row has. Sets of fewer than LEAST_ROWS rows are left out; the mapping is
    empty if the complete rows, or all other sets, are left out.
    """
    present = [names.split(",") for names in clean["present"]]
    known = [name for name in MODALITIES if any(name in names for names in present)]
    missing = np.array(["+".join(name for name in known if name not in names) or "none" for names in present])
    order = sorted(set(missing), key=lambda names: (names != "none", names.count("+"), names))
    masks = {names: missing == names for names in order if (missing == names).sum() >= LEAST_ROWS}
    return masks if "none" in masks and len(masks) > 1 else {}


def _calibration(rows: pd.DataFrame, classes: list[str]) -> float:
    if rows["probabilities"].isna().any():
        return float("nan")
    targets = rows["target"].map({name: index for index, name in enumerate(classes)}).fillna(-1)
    return scores.expected_calibration_error(targets.to_numpy(), np.stack(rows["probabilities"].tolist()))


def _further(rows: pd.DataFrame, target: Target, weights: np.ndarray) -> dict[str, tuple[float, np.ndarray | None]]:
    """Return the additional scores under one condition, with resampled values for those that have an interval."""
    truth, predicted = rows["target"], rows["prediction"]
    once = np.ones((1, len(rows)))
    if target.kind == "number":
        learned = [column.to_numpy(float) for column in (truth, predicted)]
        learned = [np.log(column) for column in learned] if target.log else learned
        further = {"r2": (scores.r_squared(*learned, once)[0], scores.r_squared(*learned, weights))}
        if target.log:
            errors = SCORES["rmse"].of_rows(truth, predicted)
            further["rmse"] = (np.sqrt(errors.mean()), np.sqrt(resampled_mean(errors, weights)))
        return further
    further = {
        "macro_f1": (scores.macro_f1(truth, predicted), None),
        "ece": (_calibration(rows, list(target.classes)), None),
    }
    if target.kind == "ordinal":
        known = truth.isin(target.classes).to_numpy()
        size, index = len(target.classes), dict(zip(target.classes, range(len(target.classes)), strict=True))
        true = truth[known].map(index)
        # An answer that is no class, such as an unparsed one, counts as the class farthest from the truth.
        answers = predicted[known].map(index).fillna((true < (size - 1) / 2) * (size - 1)).astype(int)
        indices = true, answers
        further["kappa"] = (
            scores.quadratic_kappa(*indices, size, once[:, known])[0],
            scores.quadratic_kappa(*indices, size, weights[:, known]),
        )
    return further


def _where_llm(rows: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return masks of the rows on which the language model's own prediction is right, and on which it is wrong.

    Empty if there are no such predictions, or if either mask has fewer than LEAST_ROWS rows.
    """
    if "llm_prediction" not in rows:
        return {}
    right = (rows["llm_prediction"] == rows["target"]).to_numpy()
    parts = {"accuracy_llm_right": right, "accuracy_llm_wrong": rows["llm_prediction"].notna().to_numpy() & ~right}
    return parts if min(part.sum() for part in parts.values()) >= LEAST_ROWS else {}


def results_table(
    predictions: pd.DataFrame,
    *,
    method: str,
    data: str,
    seed: int,
    target: Target,
    resamples: int,
) -> pd.DataFrame:
    """Return all metrics of one run, with the columns COLUMNS.

    `predictions` has the columns record, group, present (the modalities of the row, separated by commas), condition,
    kind, corruption, modality, level, order, target, prediction and probabilities (a list in the order of the classes,
    or null; then `ece` is NaN). With the optional column llm_prediction, classes are also scored separately for rows
    on which it is right and on which it is wrong, with their number as `n`.

    The main score, on which drops are measured, is target.metric. Shares are in [0, 1], errors in the unit of their
    name (`rmse` in the target's unit), drops at most 1, and `breakdown_*` are levels (`inf`: not reached at a tested
    level); `r2` is in the unit of training. Area and breakdown exist for noise on each modality, and for a realistic
    corruption of at least two levels. The condition `genuine` is the clean score over each set of `by_presence`, with
    the missing modalities as its modality; these are other rows, so it has no drop. `low` and `high` are the 95 %
    interval over `resamples` resampled groups, NaN if a metric has none. `n` counts the rows. The numbers do not depend
    on the order of the rows. Raises ValueError if the clean condition, or a record of a condition, is missing.
    """
    predictions = predictions.sort_values(["condition", "record"])
    conditions = conditions_of(predictions)
    score = SCORES[target.metric]
    values = value_table(predictions, target.metric, list(target.classes)).reindex(columns=conditions.index)
    if "clean" not in conditions.index or values.isna().any(axis=None):
        raise ValueError("predictions must hold the clean condition, and each record once in each condition")
    clean_rows = predictions[predictions["condition"] == "clean"]
    unknown = ~clean_rows["target"].isin(target.classes) if target.classes else np.zeros(len(clean_rows), bool)
    if unknown.any():
        names = ", ".join(sorted(set(clean_rows["target"][unknown])))
        log.warning("%d of %d test rows count as wrong: no training row has %s", unknown.sum(), len(unknown), names)

    weights = group_weights(clean_rows["group"], resamples, BOOTSTRAP_SEED)
    draws_by_name = pd.DataFrame(score.of_mean(resampled_mean(values, weights)), columns=conditions.index)
    of_constant = score.of_rows(clean_rows["target"], [target.constant] * len(clean_rows))
    chance_draws = score.of_mean(resampled_mean(of_constant, weights))
    chance = scores.chance(clean_rows["target"], target.constant, target.metric)
    means = score.of_mean(values.mean())
    by_condition = dict(list(predictions.groupby("condition")))

    lines: list[dict] = []

    def add(condition: dict, metric: str, value: float, draws: np.ndarray | None = None, n: int = len(values)) -> None:
        low, high = (float("nan"),) * 2 if draws is None else interval(draws)
        lines.append({**condition, "metric": metric, "value": float(value), "low": low, "high": high, "n": n})

    for name, condition in conditions.iterrows():
        fields = {"condition": condition["kind"], **condition[["corruption", "modality", "level", "order"]]}
        add(fields, target.metric, means[name], draws_by_name[name])
        for metric, (value, draws) in _further(by_condition[name], target, weights).items():
            add(fields, metric, value, draws)
        for metric, part in _where_llm(by_condition[name]).items() if target.classes else ():
            right = values[name].to_numpy()[part]
            add(fields, metric, right.mean(), resampled_mean(right, weights[:, part]), int(part.sum()))
        if name == "clean":
            continue
        pair, pair_draws = (means["clean"], means[name]), (draws_by_name["clean"], draws_by_name[name])
        better = score.higher_is_better
        add(fields, "drop_ratio", scores.drop_ratio(*pair, better), scores.drop_ratio(*pair_draws, better))
        add(
            fields,
            "chance_adjusted_drop",
            scores.chance_adjusted_drop(*pair, chance, better),
            scores.chance_adjusted_drop(*pair_draws, chance_draws, better),
        )

    for key, same in conditions[conditions["kind"].isin(["noisy", "natural"])].groupby(CURVE, sort=False):
        names = [name for name in same.index if same["level"][name] > 0]
        if key[0] == "natural" and len(names) < 2:
            continue
        fields = dict(zip(("condition", *CURVE[1:]), key, strict=True))
        fields |= {"level": float("nan"), "order": same["order"].iloc[0]}
        curve, levels = ["clean", *names], [0.0, *same["level"][names]]
        area = scores.area_under_curve(levels, means[curve])
        add(fields, "area_under_curve", area, scores.area_under_curve(levels, draws_by_name[curve].to_numpy()))
        drops = scores.drop_ratio(means["clean"], means[names], score.higher_is_better)
        for threshold in THRESHOLDS:
            add(fields, f"breakdown_{threshold:g}", scores.breakdown_level(levels[1:], drops, threshold))

    for names, rows in by_presence(clean_rows).items():
        fields = {
            "condition": "genuine",
            "corruption": "",
            "modality": names,
            "level": 0.0,
            "order": conditions["order"]["clean"],
        }
        row_values = values["clean"].to_numpy()[rows]
        draws = score.of_mean(resampled_mean(row_values, weights[:, rows]))
        add(fields, target.metric, score.of_mean(row_values.mean()), draws, int(rows.sum()))

    table = pd.DataFrame(lines).assign(method=method, data=data, seed=seed)
    return table[COLUMNS].astype({"level": float, "n": int, "seed": int})
