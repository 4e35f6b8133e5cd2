"""Several finished runs on the same test rows: estimates with intervals, and paired differences from a reference."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ..errors import UserError
from . import scores
from .bootstrap import group_weights, interval, resampled_mean
from .conditions import middle_level
from .results import BOOTSTRAP_SEED, by_presence, conditions_of, seen, value_table
from .scores import SCORES, Score

FILES = ("run.json", "predictions.parquet", "results.parquet")
"""What a run folder holds once its evaluation is finished."""


@dataclass(frozen=True)
class Run:
    """One finished run: `info` is run.json, of which only method, name, data and seed are sure to be there."""

    folder: Path
    info: dict
    predictions: pd.DataFrame
    results: pd.DataFrame


@dataclass(frozen=True)
class Estimate:
    """A value and its 95 % interval; NaN where undefined. `seeds` are the values of the single seeds."""

    value: float
    low: float
    high: float
    seeds: tuple[float, ...] = ()

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval lies on one side of 0."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Presence:
    """Rows that really lack some modalities, as `by_presence` names them, and each method's clean score over them."""

    missing: str
    rows: int
    scores: dict[str, Estimate]


@dataclass(frozen=True)
class Comparison:
    """The runs on one data set, on the rows that all of them have.

    A method is named by its run's name. `scores` holds the `metric` as (seeds, conditions) and `draws` as (resamples,
    conditions) for each of them, NaN for a condition that it was not evaluated on; `conditions` is from
    `conditions_of`. `genuine` are the complete rows and then those that really lack a modality, where there are both.
    """

    data: str
    metric: str
    reference: str
    conditions: pd.DataFrame
    scores: dict[str, np.ndarray]
    draws: dict[str, np.ndarray]
    perturbations: dict[str, str | None]
    chance: float
    rows: int
    groups: int
    rows_left_out: int
    genuine: list[Presence]

    @property
    def methods(self) -> list[str]:
        """Names of the runs, the reference first."""
        return list(self.scores)

    @property
    def score(self) -> Score:
        """What the metric is."""
        return SCORES[self.metric]

    @property
    def corrupted(self) -> list[str]:
        """All conditions but the clean one."""
        return [name for name in self.conditions.index if name != "clean"]

    @property
    def middle(self) -> float | None:
        """The middle level of noise; None without noise."""
        return self.middle_of("noisy")

    def middle_of(self, kind: str) -> float | None:
        """The tested level of one kind that is nearest to 0.5, the lower of two; None where the kind is not tested."""
        return middle_level(self.conditions["level"][self.conditions["kind"] == kind])

    def select(self, kind: str, modality: str | None = None, level: float | None = None) -> list[str]:
        """Names of the conditions of one kind, and of one modality and level where these are given."""
        chosen = self.conditions[self.conditions["kind"] == kind]
        if modality is not None:
            chosen = chosen[chosen["modality"] == modality]
        if level is not None:
            chosen = chosen[chosen["level"] == level]
        return list(chosen.index)

    def exposure(self, method: str, condition: str) -> str | None:
        """Whether training saw this sort of corruption: seen, partly or unseen; None where it is not stated.

        An attack is no sort of corruption: it is made against the one method.
        """
        perturbation = self.perturbations[method]
        kind, modality, corruption = self.conditions.loc[condition, ["kind", "modality", "corruption"]]
        stated = perturbation is not None and kind not in ("clean", "attack")
        return seen(perturbation, kind, modality, corruption) if stated else None

    def _means(self, method: str, names: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """The mean score over some conditions, of each seed and of each resample."""
        columns = self.conditions.index.get_indexer(names)
        return self.scores[method][:, columns].mean(axis=1), self.draws[method][:, columns].mean(axis=1)

    def _drops(self, method: str, names: list[str]) -> tuple[float, np.ndarray, np.ndarray]:
        """The mean drop ratio over some conditions: of the seeds' mean, of each seed and of each resample."""
        columns, better = self.conditions.index.get_indexer(names), self.score.higher_is_better

        def drop(values: np.ndarray) -> np.ndarray:
            clean = values[..., [self.conditions.index.get_loc("clean")]]
            return np.atleast_1d(scores.drop_ratio(clean, values[..., columns], better)).mean(axis=-1)

        found = self.scores[method]
        return float(drop(found.mean(axis=0))), drop(found), drop(self.draws[method])

    def value(self, method: str, names: list[str]) -> Estimate:
        """Mean score over some conditions and all seeds."""
        seeds, draws = self._means(method, names)
        return Estimate(float(seeds.mean()), *interval(draws), tuple(seeds.tolist()))

    def drop(self, method: str, names: list[str]) -> Estimate:
        """Drop ratio of the score averaged over the seeds; over several conditions it is their mean drop ratio."""
        value, seeds, draws = self._drops(method, names)
        return Estimate(value, *interval(draws), tuple(seeds.tolist()))

    def difference(self, method: str, names: list[str]) -> Estimate:
        """Score of the method less that of the reference on the same resamples; better is as the score says."""
        (seeds, draws), (other, drawn_other) = self._means(method, names), self._means(self.reference, names)
        return Estimate(float(seeds.mean() - other.mean()), *interval(draws - drawn_other))

    def drop_difference(self, method: str, names: list[str]) -> Estimate:
        """Drop ratio of the method less that of the reference, paired; below 0 the method loses less."""
        (value, _, draws), (other, _, drawn_other) = self._drops(method, names), self._drops(self.reference, names)
        return Estimate(value - other, *interval(draws - drawn_other))


def load_runs(experiment: Path) -> list[Run]:
    """The finished runs below `experiment`/<name>/seed-*/; a folder that lacks one of `FILES` is left out.

    Raises UserError where there is none, or where a run.json cannot be read.
    """
    runs = []
    for folder in sorted(experiment.glob("*/seed-*")):
        if not all((folder / name).is_file() for name in FILES):
            continue
        try:
            info = json.loads((folder / "run.json").read_text(encoding="utf-8"))
            info["method"], info["name"], info["data"], info["seed"]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{folder}/run.json is damaged ({error}); write it again with python -m project evaluate"
            ) from error
        tables = [pd.read_parquet(folder / name) for name in FILES[1:]]
        runs.append(Run(folder, info, *tables))
    if not runs:
        raise UserError(
            f"no finished run in {experiment}; make one with python -m project train experiment={experiment.name}"
        )
    return runs


def compare(runs: list[Run], resamples: int) -> Comparison:
    """Compares runs on one data set on the records that all of them have; `resamples` are behind each interval.

    Groups of rows are resampled alike for all methods, and the seeds of a method independently of them (crossed).
    The reference is the method `plain`, else the first by name. Raises UserError where no record is in all runs.
    """
    by_name: dict[str, list[Run]] = {}
    for run in sorted(runs, key=lambda run: (run.info["method"] != "plain", run.info["name"], run.info["seed"])):
        by_name.setdefault(run.info["name"], []).append(run)
    metrics = sorted({run.info.get("metric", "accuracy") for run in runs})
    if len(metrics) > 1:
        raise UserError(f"the runs on {runs[0].info['data']} are scored by {' and '.join(metrics)}; give runs on "
                        "another target another data.name=")
    metric = metrics[0]
    tables = {id(run): value_table(run.predictions, metric, run.info.get("classes")) for run in runs}
    indices = [set(table.index) for table in tables.values()]
    records = sorted(set.intersection(*indices))
    if not records:
        folders = ", ".join(str(run.folder) for run in runs)
        raise UserError(f"no test row is in all of {folders}; give runs on other rows another experiment=")
    conditions = conditions_of(pd.concat([run.predictions for run in runs]))

    rows = runs[0].predictions.drop_duplicates("record").set_index("record").loc[records]
    constant = next((run.info["constant"] for run in runs if run.info.get("constant") is not None), None)
    weights = group_weights(rows["group"], resamples, BOOTSTRAP_SEED)
    found, draws = {}, {}
    masks = by_presence(rows)
    genuine = [Presence(names, int(own.sum()), {}) for names, own in masks.items()]
    for index, (name, same) in enumerate(by_name.items()):
        values = [tables[id(run)].reindex(index=records, columns=conditions.index) for run in same]
        found[name] = np.stack([SCORES[metric].of_mean(table.mean(skipna=False)) for table in values])
        drawn = np.stack([SCORES[metric].of_mean(resampled_mean(table, weights)) for table in values])
        generator = np.random.default_rng([BOOTSTRAP_SEED, index])
        counts = generator.multinomial(len(same), np.full(len(same), 1 / len(same)), size=resamples)
        draws[name] = np.einsum("rs,src->rc", counts / len(same), drawn)
        clean = np.stack([table["clean"] for table in values], axis=1)
        for presence in genuine:
            own = masks[presence.missing]
            seeds = SCORES[metric].of_mean(clean[own].mean(axis=0))
            resampled = SCORES[metric].of_mean(resampled_mean(clean[own], weights[:, own]))
            bounds = interval((resampled * counts).sum(axis=1) / len(same))
            presence.scores[name] = Estimate(float(seeds.mean()), *bounds, tuple(seeds.tolist()))
    return Comparison(
        data=runs[0].info["data"],
        metric=metric,
        reference=next(iter(by_name)),
        conditions=conditions,
        scores=found,
        draws=draws,
        perturbations={name: same[0].info.get("perturbation") for name, same in by_name.items()},
        chance=float("nan") if constant is None else scores.chance(rows["target"], constant, metric),
        rows=len(records),
        groups=rows["group"].nunique(),
        rows_left_out=len(set.union(*indices)) - len(records),
        genuine=genuine,
    )
