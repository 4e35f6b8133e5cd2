"""What the experts' words keep: how much of the label a modality tells as it is, and how much its description does.

The first arrow of the pipeline, before any language model; the measure is our own choice.
"""

import json
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin

from ..corruption.structure import without
from ..data.rows import Rows
from ..errors import UserError
from ..evaluation.results import BOOTSTRAP_SEED
from ..methods.image_features import has_pixels
from ..methods.raw_features import Features, Raw, raw_values
from ..methods.tabular_features import fit_columns
from ..metrics.bootstrap import estimate_with_interval, group_weights
from ..metrics.scores import SCORES
from .probe import cross_val_row_scores, fit_probe, score_difference

COLUMNS = ["modality", "measure", "value", "low", "high", "n"]
RAW = ("image", "text", "table")
"""The modalities that can be read as they are: frozen features of the picture, words, numbers and categories."""


def clean_texts(texts: pd.DataFrame) -> pd.DataFrame:
    """The rows of texts.parquet that the first arrow is measured on: clean and unperturbed, by record."""
    return texts[(texts["condition"] == "clean") & texts["round"].isna()].sort_values("record", kind="stable")


def transformation_table(texts: pd.DataFrame, rows: Rows, resamples: int, device: str = "cpu") -> pd.DataFrame:
    """`raw`, `described` and `lost` of each modality on the clean test rows, in the columns `COLUMNS`.

    The score of a plain reader (a linear model) of the modality as it is, of one of its description in texts.parquet,
    and by how much the second is worse, with intervals over groups. Both learned from the training rows, and from the
    other folds' test rows. Raises UserError where the rows are not those of the texts.
    """
    clean = clean_texts(texts)
    train, test = (clean[clean["split"] == split] for split in ("train", "test"))
    there = {record.id: record for record in (*rows.train, *rows.test)}
    if not set(clean["record"]) <= set(there):
        raise UserError("the data are not those that the run was made with")
    records = [there[name] for name in (*train["record"], *test["record"])]
    learned, tested = range(len(train)), range(len(train), len(records))
    groups, targets = test["group"].tolist(), test["target"].tolist()
    weights, metric = group_weights(groups, resamples, BOOTSTRAP_SEED), rows.target.metric
    found = []
    for modality in (name for name in rows.modalities if name in RAW):
        others = tuple(name for name in rows.modalities if name != modality)
        seen = [without(record, others) for record in records]
        columns = fit_columns(seen[: len(train)])
        data = raw_values(seen, records, columns, any(has_pixels(record.image) for record in seen), device)
        said = [[json.loads(parts).get(modality, "") for parts in part["described"]] for part in (train, test)]
        known = train["target"].tolist()
        [own] = cross_val_row_scores(
            tested, targets, groups, [tested], metric, (learned, known), numbers(data, columns.sizes)
        )
        [told] = cross_val_row_scores(said[1], targets, groups, [said[1]], metric, (said[0], known))
        for measure, values in (("raw", own), ("described", told)):
            found.append(
                (modality, measure, *estimate_with_interval(values, weights, SCORES[metric].of_mean), len(test))
            )
        found.append((modality, "lost", *score_difference(own, told, weights, metric), len(test)))
    return pd.DataFrame(found, columns=COLUMNS)


def numbers(data: Raw, sizes: Sequence[int]) -> Callable:
    """Return a function that fits a probe to raw records, for the argument `fit` of `cross_val_row_scores`.

    It maps (row indices into `data`, targets, metric) to a probe, which maps row indices to predictions.
    """
    return lambda indices, targets, metric: fit_probe(_Numbers(data, sizes), indices, targets, metric)


class _Numbers(TransformerMixin, BaseEstimator):
    """Row indices -> the features that a linear model reads; what they scale by is learned from the rows of `fit`."""

    def __init__(self, data: Raw, sizes: Sequence[int]):
        self.data, self.sizes = data, sizes

    def fit(self, indices: Sequence[int], y=None) -> "_Numbers":
        """Learn from the rows."""
        self.features_ = Features(self._taken(indices), self.sizes, seed=0)
        return self

    def transform(self, indices: Sequence[int]):
        """The rows as numbers, shape (rows, columns)."""
        return self.features_.linear(self._taken(indices))

    def _taken(self, indices: Sequence[int]) -> Raw:
        rows, data = np.asarray(indices, int), self.data
        return Raw(
            data.scores[rows],
            data.codes[rows],
            [data.texts[row] for row in rows],
            None if data.images is None else data.images[rows],
        )
