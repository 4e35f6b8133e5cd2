"""Several finished runs on the same test rows: estimates with intervals, and paired differences from a reference.

The bootstrap is crossed: each resample draws groups of test rows, the same for all methods and for clean and corrupted
rows, and for each method seeds of its own. What is computed of the resampled scores of two methods is therefore paired
in the rows and independent in the seeds: two methods that were trained with one seed share no more than its number.
"""

import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..corruption.conditions import middle_level
from ..errors import UserError
from ..metrics import scores
from ..metrics.bootstrap import group_weights, interval, resampled_mean
from ..metrics.scores import SCORES, Score
from .results import BOOTSTRAP_SEED, by_presence, conditions_of, training_exposure, value_table
from .run_loading import Run, by_name

OURS = "ours"
"""The method that the others are rivals of: conf/method/ours.yaml."""

Measure = Callable[..., np.ndarray]
"""From the scores of one or more methods, each of shape (..., conditions), to a measure of shape (...)."""


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

    `runs` holds those of each method by the name of `by_name`. `scores` holds the `metric` as (seeds, conditions) and
    `draws` as (resamples, conditions) for each of them, NaN for a condition that it was not evaluated on; `conditions`
    is from `conditions_of`. `chance_draws` has shape (resamples,). `genuine` are the complete rows and then those that
    really lack a modality, where there are both.
    """

    data: str
    metric: str
    conditions: pd.DataFrame
    runs: dict[str, list[Run]]
    scores: dict[str, np.ndarray]
    draws: dict[str, np.ndarray]
    chance: float
    chance_draws: np.ndarray
    rows: int
    groups: int
    rows_left_out: int
    genuine: list[Presence]

    @property
    def reference(self) -> str:
        """What the others are compared with: the method `plain`, else the first by name."""
        return self.named("plain") or next(iter(self.runs))

    @property
    def methods(self) -> list[str]:
        """Names of the runs: the reference, then ours, then the others by name."""
        first = [self.reference, self.named(OURS)]
        return list(dict.fromkeys([name for name in first if name] + list(self.runs)))

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
        perturbation = self.perturbation(method)
        kind, modality, corruption = self.conditions.loc[condition, ["kind", "modality", "corruption"]]
        stated = perturbation is not None and kind not in ("clean", "attack")
        return training_exposure(perturbation, kind, modality, corruption) if stated else None

    def perturbation(self, method: str) -> str | None:
        """The kind of perturbation that a method was trained with; None where it is not stated."""
        return self.runs[method][0].info.perturbation

    def validation(self, method: str) -> float:
        """Return the best val/score of a method, averaged over its seeds; NaN if a run has none."""
        return float(np.mean([run.info.val.best_score if run.info.val else math.nan for run in self.runs[method]]))

    def named(self, method: str) -> str | None:
        """The name under which the runs of conf/method/<method>.yaml are compared; None where there are none.

        Of several the unchanged one, whose own name is the method's, then the best on validation.
        """

        def rank(name: str) -> tuple:
            score = self.validation(name) * (-1 if self.score.higher_is_better else 1)
            return self.runs[name][0].info.name != method, math.isnan(score), score, name

        return min((name for name, same in self.runs.items() if same[0].info.method == method), key=rank, default=None)

    def estimate(self, measure: Measure, *methods: str) -> Estimate:
        """A measure of the seeds' mean scores with its interval; of a single method, of each of its seeds too."""
        value = measure(*(self.scores[method].mean(axis=0) for method in methods))
        draws = measure(*(self.draws[method] for method in methods))
        seeds = measure(self.scores[methods[0]]).tolist() if len(methods) == 1 else ()
        return Estimate(float(value), *interval(draws), tuple(seeds))

    def columns(self, names: Sequence[str]) -> np.ndarray:
        """Where the conditions stand among those of `scores`, for measures; shape (names,)."""
        return self.conditions.index.get_indexer(names)

    def mean_of(self, names: list[str]) -> Measure:
        """The mean score over some conditions."""
        columns = self.columns(names)
        return lambda scores: scores[..., columns].mean(axis=-1)

    def drop_of(self, names: list[str]) -> Measure:
        """The mean drop ratio over some conditions."""
        columns, clean, better = self.columns(names), self.columns(["clean"]), self.score.higher_is_better
        return lambda found: scores.drop_ratio(found[..., clean], found[..., columns], better).mean(axis=-1)

    def value(self, method: str, names: list[str]) -> Estimate:
        """Mean score over some conditions and all seeds."""
        return self.estimate(self.mean_of(names), method)

    def drop(self, method: str, names: list[str]) -> Estimate:
        """Drop ratio of the score averaged over the seeds; over several conditions it is their mean drop ratio."""
        return self.estimate(self.drop_of(names), method)

    def chance_adjusted(self, method: str, name: str) -> Estimate:
        """Chance-adjusted drop of the score averaged over the seeds, under one condition."""
        clean, column, better = *self.columns(["clean", name]), self.score.higher_is_better
        found, draws = self.scores[method].mean(axis=0), self.draws[method]
        drawn = scores.chance_adjusted_drop(draws[:, clean], draws[:, column], self.chance_draws, better)
        value = scores.chance_adjusted_drop(found[clean], found[column], self.chance, better)
        return Estimate(float(value), *interval(drawn))

    def difference(self, method: str, names: list[str]) -> Estimate:
        """Score of the method less that of the reference on the same resamples; better is as the score says."""
        mean = self.mean_of(names)
        return self.estimate(lambda own, other: mean(own) - mean(other), method, self.reference)

    def drop_difference(self, method: str, names: list[str], other: str | None = None) -> Estimate:
        """Drop ratio of the method less that of another, by default the reference, paired; below 0 it loses less."""
        drop = self.drop_of(names)
        return self.estimate(lambda own, other: drop(own) - drop(other), method, other or self.reference)


def compare(runs: list[Run], resamples: int) -> Comparison:
    """Compares runs on one data set on the records that all of them have; `resamples` are behind each interval.

    Groups of rows are resampled alike for all methods, and the seeds of a method independently of them (crossed).
    Raises UserError where no record is in all runs, or where they differ in the metric or the corruptions' seed.
    """
    metrics = sorted({run.info.metric for run in runs})
    if len(metrics) > 1:
        raise UserError(
            f"the runs on {runs[0].info.data} are scored by {' and '.join(metrics)}; give runs on "
            "another target another data.name="
        )
    metric = metrics[0]
    seeds = sorted({run.info.corruption_seed for run in runs if run.info.corruption_seed is not None})
    if len(seeds) > 1:
        raise UserError(
            f"the runs on {runs[0].info.data} were tested on other corruptions each, of robustness.seed="
            f"{' and '.join(map(str, seeds))}; report them apart"
        )
    tables = {id(run): value_table(run.predictions, metric, run.info.classes) for run in runs}
    indices = [set(table.index) for table in tables.values()]
    records = sorted(set.intersection(*indices))
    if not records:
        folders = ", ".join(str(run.folder) for run in runs)
        raise UserError(f"no test row is in all of {folders}; give runs on other rows another experiment=")
    conditions = conditions_of(pd.concat([run.predictions for run in runs]))

    rows = runs[0].predictions.drop_duplicates("record").set_index("record").loc[records]
    constant = next((run.info.constant for run in runs if run.info.constant is not None), None)
    weights = group_weights(rows["group"], resamples, BOOTSTRAP_SEED)
    named, found, draws = by_name(runs), {}, {}
    masks = by_presence(rows)
    genuine = [Presence(names, int(own.sum()), {}) for names, own in masks.items()]
    for name, same in named.items():
        values = [tables[id(run)].reindex(index=records, columns=conditions.index) for run in same]
        found[name] = np.stack([SCORES[metric].of_mean(table.mean(skipna=False)) for table in values])
        drawn = np.stack([SCORES[metric].of_mean(resampled_mean(table, weights)) for table in values])
        # Seeded by the name, so that a method's interval does not depend on what it is compared with.
        generator = np.random.default_rng([BOOTSTRAP_SEED, zlib.crc32(name.encode())])
        counts = generator.multinomial(len(same), np.full(len(same), 1 / len(same)), size=resamples)
        draws[name] = np.einsum("rs,src->rc", counts / len(same), drawn)
        clean = np.stack([table["clean"] for table in values], axis=1)
        for presence in genuine:
            own = masks[presence.missing]
            seeds = SCORES[metric].of_mean(clean[own].mean(axis=0))
            resampled = SCORES[metric].of_mean(resampled_mean(clean[own], weights[:, own]))
            bounds = interval((resampled * counts).sum(axis=1) / len(same))
            presence.scores[name] = Estimate(float(seeds.mean()), *bounds, tuple(seeds.tolist()))
    if constant is None:
        chance, chance_draws = math.nan, np.full(resamples, math.nan)
    else:
        of_constant = SCORES[metric].of_rows(rows["target"], [constant] * len(rows))
        chance = scores.chance(rows["target"], constant, metric)
        chance_draws = SCORES[metric].of_mean(resampled_mean(of_constant, weights))
    return Comparison(
        data=runs[0].info.data,
        metric=metric,
        conditions=conditions,
        runs=named,
        scores=found,
        draws=draws,
        chance=chance,
        chance_draws=chance_draws,
        rows=len(records),
        groups=rows["group"].nunique(),
        rows_left_out=len(set.union(*indices)) - len(records),
        genuine=genuine,
    )
