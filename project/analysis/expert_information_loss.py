"""Measure how much information about the label the experts lose when they describe a modality in words.

A linear probe of the raw modality is compared with one of its description, before any language model. The measure is
our own choice.
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

TRANSFORMATION_COLUMNS = ["modality", "measure", "value", "low", "high", "n"]
RAW_MODALITIES = ("image", "text", "table")
"""The modalities with raw features: frozen image features, words, numbers and categories."""


def clean_texts(texts: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of texts.parquet that are clean and unperturbed, sorted by record."""
    return texts[(texts["condition"] == "clean") & texts["round"].isna()].sort_values("record", kind="stable")


def transformation_table(texts: pd.DataFrame, rows: Rows, resamples: int, device: str = "cpu") -> pd.DataFrame:
    """Return `raw`, `described` and `lost` of each modality, in the columns `TRANSFORMATION_COLUMNS`.

    `raw` is the score of a linear probe of the raw modality on the clean test rows, `described` the score of a probe of
    its description in texts.parquet, and `lost` by how much the second is worse; all have intervals over groups. The
    probes are fitted to the training rows and to the other folds' test rows. Raises UserError if `rows` lacks a record
    of the texts.
    """
    clean = clean_texts(texts)
    train, test = (clean[clean["split"] == split] for split in ("train", "test"))
    by_id = {record.id: record for record in (*rows.train, *rows.test)}
    if not set(clean["record"]) <= set(by_id):
        raise UserError("the data are not those of the run: records of texts.parquet are missing; restore the data")
    records = [by_id[name] for name in (*train["record"], *test["record"])]
    train_indices, test_indices = range(len(train)), range(len(train), len(records))
    train_targets = train["target"].tolist()
    groups, targets = test["group"].tolist(), test["target"].tolist()
    weights, metric = group_weights(groups, resamples, BOOTSTRAP_SEED), rows.target.metric
    table = []
    for modality in (name for name in rows.modalities if name in RAW_MODALITIES):
        others = tuple(name for name in rows.modalities if name != modality)
        single = [without(record, others) for record in records]
        columns = fit_columns(single[: len(train)])
        data = raw_values(single, records, columns, any(has_pixels(record.image) for record in single), device)
        train_texts, test_texts = (
            [json.loads(parts).get(modality, "") for parts in part["described"]] for part in (train, test)
        )
        [raw] = cross_val_row_scores(
            test_indices,
            targets,
            groups,
            [test_indices],
            metric,
            (train_indices, train_targets),
            raw_probe(data, columns.sizes),
        )
        [described] = cross_val_row_scores(
            test_texts, targets, groups, [test_texts], metric, (train_texts, train_targets)
        )
        for measure, values in (("raw", raw), ("described", described)):
            table.append(
                (modality, measure, *estimate_with_interval(values, weights, SCORES[metric].of_mean), len(test))
            )
        table.append((modality, "lost", *score_difference(raw, described, weights, metric), len(test)))
    return pd.DataFrame(table, columns=TRANSFORMATION_COLUMNS)


def raw_probe(data: Raw, sizes: Sequence[int]) -> Callable:
    """Return a function that fits a probe to raw records, for the argument `fit` of `cross_val_row_scores`.

    It maps (row indices into `data`, targets, metric) to a probe, which maps row indices to predictions.
    """
    return lambda indices, targets, metric: fit_probe(_RawFeatures(data, sizes), indices, targets, metric)


class _RawFeatures(TransformerMixin, BaseEstimator):
    """Map row indices to the features of a linear model; `fit` learns their scales from the training rows."""

    def __init__(self, data: Raw, sizes: Sequence[int]):
        self.data, self.sizes = data, sizes

    def fit(self, indices: Sequence[int], y=None) -> "_RawFeatures":
        """Learn vocabulary and scales from the rows."""
        self.features_ = Features(self._select(indices), self.sizes, seed=0)
        return self

    def transform(self, indices: Sequence[int]):
        """Return the features of the rows, shape (rows, columns)."""
        return self.features_.linear(self._select(indices))

    def _select(self, indices: Sequence[int]) -> Raw:
        rows, data = np.asarray(indices, int), self.data
        return Raw(
            data.scores[rows],
            data.codes[rows],
            [data.texts[row] for row in rows],
            None if data.images is None else data.images[rows],
        )
