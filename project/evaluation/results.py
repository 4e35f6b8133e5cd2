"""From predictions, one row a record and condition, to the table of results, one row a condition and metric."""

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
"""The same for every run, so that all methods are measured on the same resampled groups."""
THRESHOLDS = (0.1, 0.2)
"""Drop ratios that count as a breakdown."""
LEAST_ROWS = 5
"""Parts of the rows, such as those that really lack a modality, are scored apart where they have so many rows."""

CURVE = ["kind", "corruption", "modality"]
"""What the conditions have in common that differ in their level alone."""

_KINDS = ["clean", "noisy", "missing", "order", "natural", "attack"]
_MODALITIES = ["none", *MODALITIES, *map("+".join, combinations(MODALITIES, 2)), "all"]


def training_exposure(
    perturbation: str, kind: str, modality: str, corruption: str = ""
) -> Literal["seen", "partly", "unseen"]:
    """Whether training with this perturbation showed the model corruptions of the tested sort.

    Rules drop words and columns, take modalities away and change their order; instructions let an LLM do the like
    to a text, where a table's columns are no longer apart, and so does all, which draws from them; paraphrases and
    moved embeddings damage nothing. No perturbation of texts adds noise to pixels, so noise on all modalities is seen
    in part; fusion may be trained with the tested noise on all modalities, and with modalities missing. Of realistic
    damage, some instructions ask for typing errors, for badly scanned text and for a first half alone; the rules drop
    words anywhere, which is in part what truncation does. Raises KeyError for another perturbation.
    """
    told = {"noisy": {"text"}, "missing": None, "order": None, "natural": {"typing", "ocr", "truncation"}}
    trained = {
        "none": {},
        "freelb": {},
        "paraphrase": {},
        "rules": {"noisy": {"text", "table"}, "missing": None, "order": None, "natural": set()},
        "instructions": told,
        "all": told,
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
    """The conditions of some predictions: kind, modality, corruption, level and order, indexed by the condition's name.

    Clean comes first, then noise by modality and level, missing modalities, orders, and realistic damage. Rows that
    differ in nothing but their record make one condition.
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
    """What each row adds to the mean behind a score: a row per record (sorted) and a column per condition.

    A class that is not among `classes` is unknown to the model and counts as wrong. A record and condition that are
    not there have NaN; one that is there twice is a ValueError.
    """
    values = SCORES[metric].of_rows(predictions["target"], predictions["prediction"])
    if classes:
        values = values * predictions["target"].isin(classes).to_numpy()
    return predictions.assign(value=values).pivot(index="record", columns="condition", values="value")


def by_presence(clean: pd.DataFrame) -> dict[str, np.ndarray]:
    """The rows that really lack modalities, and the complete ones, as masks of shape (rows,) by what is missing.

    `clean` are the predictions under the clean condition. "none" comes first, then names such as image or image+text.
    A complete row has every modality that any row has. Sets of fewer than LEAST_ROWS are left out; without such a set
    beside the complete rows there is nothing to tell, and the mapping is empty.
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
    """The scores beside the main one under one condition, with their resampled values where they have an interval."""
    truth, found = rows["target"], rows["prediction"]
    once = np.ones((1, len(rows)))
    if target.kind == "number":
        learned = [column.to_numpy(float) for column in (truth, found)]
        learned = [np.log(column) for column in learned] if target.log else learned
        further = {"r2": (scores.r_squared(*learned, once)[0], scores.r_squared(*learned, weights))}
        if target.log:
            errors = SCORES["rmse"].of_rows(truth, found)
            further["rmse"] = (np.sqrt(errors.mean()), np.sqrt(resampled_mean(errors, weights)))
        return further
    further = {
        "macro_f1": (scores.macro_f1(truth, found), None),
        "ece": (_calibration(rows, list(target.classes)), None),
    }
    if target.kind == "ordinal":
        known = truth.isin(target.classes).to_numpy()
        size, index = len(target.classes), dict(zip(target.classes, range(len(target.classes)), strict=True))
        true = truth[known].map(index)
        # What is no class, as where a language model gave none, counts as the one that is farthest from the truth.
        said = found[known].map(index).fillna((true < (size - 1) / 2) * (size - 1)).astype(int)
        indices = true, said
        further["kappa"] = (
            scores.quadratic_kappa(*indices, size, once[:, known])[0],
            scores.quadratic_kappa(*indices, size, weights[:, known]),
        )
    return further


def _where_llm(rows: pd.DataFrame) -> dict[str, np.ndarray]:
    """Which rows of a condition a text method answered where the language model's own prediction was right, and where
    it was wrong; nothing where there is none, or where either part has fewer than LEAST_ROWS rows.
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
    """All metrics of one run, in the columns `COLUMNS`.

    `predictions` has the columns record, group, present (the modalities that the row really has, with commas between
    them), condition, kind, corruption, modality, level, order, target, prediction and probabilities (a list in the
    order of the classes, or null where the method gives none, whose `ece` is NaN). It may have llm_prediction (null
    where there is none): classes are then scored apart where it was right and where it was wrong, with the rows of the
    part as `n`.
    The main score, on which drops are measured, is target.metric. Shares are in [0, 1], errors in the unit that their
    name says (`rmse` in the target's own), drops at most 1, and `breakdown_*` are levels (`inf`: not reached at any
    tested level); `r2` is in the unit that is learned. Area and breakdown are there for noise on each modality, and for
    a realistic damage of two levels at least. The condition `genuine` is the clean score over each set of
    `by_presence`, its modality what these rows lack; they are other rows, so it has no drop. `low` and `high` are the
    95 % interval over `resamples` resampled groups, NaN where a metric has none. `n` counts the rows. The numbers do
    not depend on the order of the rows. Raises ValueError where the clean condition or a record of a condition is not
    there.
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
    drawn = pd.DataFrame(score.of_mean(resampled_mean(values, weights)), columns=conditions.index)
    of_constant = score.of_rows(clean_rows["target"], [target.constant] * len(clean_rows))
    drawn_chance = score.of_mean(resampled_mean(of_constant, weights))
    chance = scores.chance(clean_rows["target"], target.constant, target.metric)
    found_score = score.of_mean(values.mean())
    by_condition = dict(list(predictions.groupby("condition")))

    found: list[dict] = []

    def add(condition: dict, metric: str, value: float, draws: np.ndarray | None = None, n: int = len(values)) -> None:
        low, high = (float("nan"),) * 2 if draws is None else interval(draws)
        found.append({**condition, "metric": metric, "value": float(value), "low": low, "high": high, "n": n})

    for name, condition in conditions.iterrows():
        about = {"condition": condition["kind"], **condition[["corruption", "modality", "level", "order"]]}
        add(about, target.metric, found_score[name], drawn[name])
        for metric, (value, draws) in _further(by_condition[name], target, weights).items():
            add(about, metric, value, draws)
        for metric, part in _where_llm(by_condition[name]).items() if target.classes else ():
            right = values[name].to_numpy()[part]
            add(about, metric, right.mean(), resampled_mean(right, weights[:, part]), int(part.sum()))
        if name == "clean":
            continue
        pair, drawn_pair = (found_score["clean"], found_score[name]), (drawn["clean"], drawn[name])
        better = score.higher_is_better
        add(about, "drop_ratio", scores.drop_ratio(*pair, better), scores.drop_ratio(*drawn_pair, better))
        add(
            about,
            "chance_adjusted_drop",
            scores.chance_adjusted_drop(*pair, chance, better),
            scores.chance_adjusted_drop(*drawn_pair, drawn_chance, better),
        )

    for key, same in conditions[conditions["kind"].isin(["noisy", "natural"])].groupby(CURVE, sort=False):
        names = [name for name in same.index if same["level"][name] > 0]
        if key[0] == "natural" and len(names) < 2:
            continue
        about = dict(zip(("condition", *CURVE[1:]), key, strict=True))
        about |= {"level": float("nan"), "order": same["order"].iloc[0]}
        curve, levels = ["clean", *names], [0.0, *same["level"][names]]
        area = scores.area_under_curve(levels, found_score[curve])
        add(about, "area_under_curve", area, scores.area_under_curve(levels, drawn[curve].to_numpy()))
        drops = scores.drop_ratio(found_score["clean"], found_score[names], score.higher_is_better)
        for threshold in THRESHOLDS:
            add(about, f"breakdown_{threshold:g}", scores.breakdown_level(levels[1:], drops, threshold))

    for names, rows in by_presence(clean_rows).items():
        about = {
            "condition": "genuine",
            "corruption": "",
            "modality": names,
            "level": 0.0,
            "order": conditions["order"]["clean"],
        }
        own = values["clean"].to_numpy()[rows]
        draws = score.of_mean(resampled_mean(own, weights[:, rows]))
        add(about, target.metric, score.of_mean(own.mean()), draws, int(rows.sum()))

    table = pd.DataFrame(found).assign(method=method, data=data, seed=seed)
    return table[COLUMNS].astype({"level": float, "n": int, "seed": int})
