"""Compare finished runs on the same test rows: estimates with intervals, and paired differences from a reference.

The bootstrap is crossed: each resample draws groups of test rows, which are the same for all methods and conditions,
and seeds independently for each method. A difference of two methods is therefore paired in the rows and independent in
the seeds, since two trainings with one seed share only its number.
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
"""The proposed method: conf/method/ours.yaml."""

Measure = Callable[..., np.ndarray]
"""A function from the scores of one or more methods, each of shape (..., conditions), to a measure of shape (...)."""


@dataclass(frozen=True)
class Estimate:
    """A value and its 95 % interval; NaN if undefined. `seeds` are the values of the single seeds."""

    value: float
    low: float
    high: float
    seeds: tuple[float, ...] = ()

    @property
    def excludes_zero(self) -> bool:
        """Return True if the interval lies on one side of 0."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Presence:
    """Rows that lack some modalities, as named by `by_presence`, and each method's clean score over them."""

    missing: str
    rows: int
    scores: dict[str, Estimate]


@dataclass(frozen=True)
class Comparison:
    """The runs on one data set, on the rows that all of them have.

    `runs` has the runs of each method by the name of `by_name`. For each name, `scores` has the `metric` with shape
    (seeds, conditions) and `draws` with shape (resamples, conditions), NaN for a condition that was not evaluated.
    `conditions` is from `conditions_of`; `chance_draws` has shape (resamples,). `genuine` has the complete rows and
    then those that lack a modality; it is empty if all rows are of one kind.
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
        """Return the name of the method that others are compared with: `plain`, else the first by name."""
        return self.named("plain") or next(iter(self.runs))

    @property
    def methods(self) -> list[str]:
        """Return the names of the methods: the reference, then ours, then the others by name."""
        first = [self.reference, self.named(OURS)]
        return list(dict.fromkeys([name for name in first if name] + list(self.runs)))

    @property
    def score(self) -> Score:
        """Return the score of the metric."""
        return SCORES[self.metric]

    @property
    def corrupted(self) -> list[str]:
        """Return the names of all conditions except clean."""
        return [name for name in self.conditions.index if name != "clean"]

    @property
    def middle(self) -> float | None:
        """Return the middle level of noise; None if noise was not tested."""
        return self.middle_of("noisy")

    def middle_of(self, kind: str) -> float | None:
        """Return the tested level of a kind that is nearest to 0.5, the lower of two; None if it was not tested."""
        return middle_level(self.conditions["level"][self.conditions["kind"] == kind])

    def select(self, kind: str, modality: str | None = None, level: float | None = None) -> list[str]:
        """Return the names of the conditions of one kind, optionally of one modality and level."""
        selected = self.conditions[self.conditions["kind"] == kind]
        if modality is not None:
            selected = selected[selected["modality"] == modality]
        if level is not None:
            selected = selected[selected["level"] == level]
        return list(selected.index)

    def exposure(self, method: str, condition: str) -> str | None:
        """Return whether training saw this kind of corruption: seen, partly or unseen; None if unknown.

        It is None for clean rows and for an attack, which is made against each method.
        """
        perturbation = self.perturbation(method)
        kind, modality, corruption = self.conditions.loc[condition, ["kind", "modality", "corruption"]]
        is_known = perturbation is not None and kind not in ("clean", "attack")
        return training_exposure(perturbation, kind, modality, corruption) if is_known else None

    def perturbation(self, method: str) -> str | None:
        """Return the kind of perturbation that a method was trained with; None if unknown."""
        return self.runs[method][0].info.perturbation

    def validation(self, method: str) -> float:
        """Return the best val/score of a method, averaged over its seeds; NaN if a run has none."""
        return float(np.mean([run.info.val.best_score if run.info.val else math.nan for run in self.runs[method]]))

    def named(self, method: str) -> str | None:
        """Return the name under which the runs of conf/method/<method>.yaml are compared; None if there are none.

        Of several names, it is the one that equals the method's, else the best on validation.
        """

        def rank(name: str) -> tuple:
            score = self.validation(name) * (-1 if self.score.higher_is_better else 1)
            return self.runs[name][0].info.name != method, math.isnan(score), score, name

        names = [name for name, group in self.runs.items() if group[0].info.method == method]
        return min(names, key=rank, default=None)

    def estimate(self, measure: Measure, *methods: str) -> Estimate:
        """Return a measure of the scores averaged over seeds, with its interval; for one method also of each seed."""
        value = measure(*(self.scores[method].mean(axis=0) for method in methods))
        draws = measure(*(self.draws[method] for method in methods))
        seeds = measure(self.scores[methods[0]]).tolist() if len(methods) == 1 else ()
        return Estimate(float(value), *interval(draws), tuple(seeds))

    def columns(self, names: Sequence[str]) -> np.ndarray:
        """Return the column indices of conditions in `scores`, shape (names,)."""
        return self.conditions.index.get_indexer(names)

    def mean_of(self, names: list[str]) -> Measure:
        """Return the measure of the mean score over some conditions."""
        columns = self.columns(names)
        return lambda scores: scores[..., columns].mean(axis=-1)

    def drop_of(self, names: list[str]) -> Measure:
        """Return the measure of the mean drop ratio over some conditions."""
        columns, clean, better = self.columns(names), self.columns(["clean"]), self.score.higher_is_better
        return lambda values: scores.drop_ratio(values[..., clean], values[..., columns], better).mean(axis=-1)

    def value(self, method: str, names: list[str]) -> Estimate:
        """Return the mean score over some conditions and all seeds."""
        return self.estimate(self.mean_of(names), method)

    def drop(self, method: str, names: list[str]) -> Estimate:
        """Return the drop ratio of the score averaged over seeds; for several conditions, the mean of their ratios."""
        return self.estimate(self.drop_of(names), method)

    def chance_adjusted(self, method: str, name: str) -> Estimate:
        """Return the chance-adjusted drop of the score averaged over seeds, under one condition."""
        clean, column, better = *self.columns(["clean", name]), self.score.higher_is_better
        means, draws = self.scores[method].mean(axis=0), self.draws[method]
        drop_draws = scores.chance_adjusted_drop(draws[:, clean], draws[:, column], self.chance_draws, better)
        value = scores.chance_adjusted_drop(means[clean], means[column], self.chance, better)
        return Estimate(float(value), *interval(drop_draws))

    def difference(self, method: str, names: list[str]) -> Estimate:
        """Return the paired difference of scores: the method's minus the reference's."""
        mean = self.mean_of(names)
        return self.estimate(lambda own, other: mean(own) - mean(other), method, self.reference)

    def drop_difference(self, method: str, names: list[str], other: str | None = None) -> Estimate:
        """Return the paired difference of drop ratios: the method's minus another's, by default the reference's."""
        drop = self.drop_of(names)
        return self.estimate(lambda own, other: drop(own) - drop(other), method, other or self.reference)


def compare(runs: list[Run], resamples: int) -> Comparison:
    """Compare runs on one data set on the records that all of them have, with `resamples` bootstrap resamples.

    The bootstrap is crossed: rows are resampled in groups, jointly for all methods, and seeds independently for each
    method. Raises UserError if no record is in all runs, or if the runs differ in the metric or in robustness.seed.
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
            f"the runs on {runs[0].info.data} were tested on different corruptions, of robustness.seed="
            f"{' and '.join(map(str, seeds))}; report them separately"
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
    groups, seed_scores, draws = by_name(runs), {}, {}
    masks = by_presence(rows)
    genuine = [Presence(names, int(mask.sum()), {}) for names, mask in masks.items()]
    for name, group in groups.items():
        values = [tables[id(run)].reindex(index=records, columns=conditions.index) for run in group]
        seed_scores[name] = np.stack([SCORES[metric].of_mean(table.mean(skipna=False)) for table in values])
        seed_draws = np.stack([SCORES[metric].of_mean(resampled_mean(table, weights)) for table in values])
        # Seeded by the name, so that a method's interval does not depend on the other methods.
        generator = np.random.default_rng([BOOTSTRAP_SEED, zlib.crc32(name.encode())])
        counts = generator.multinomial(len(group), np.full(len(group), 1 / len(group)), size=resamples)
        draws[name] = np.einsum("rs,src->rc", counts / len(group), seed_draws)
        clean = np.stack([table["clean"] for table in values], axis=1)
        for presence in genuine:
            mask = masks[presence.missing]
            seeds = SCORES[metric].of_mean(clean[mask].mean(axis=0))
            resampled = SCORES[metric].of_mean(resampled_mean(clean[mask], weights[:, mask]))
            bounds = interval((resampled * counts).sum(axis=1) / len(group))
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
        runs=groups,
        scores=seed_scores,
        draws=draws,
        chance=chance,
        chance_draws=chance_draws,
        rows=len(records),
        groups=rows["group"].nunique(),
        rows_left_out=len(set.union(*indices)) - len(records),
        genuine=genuine,
    )
