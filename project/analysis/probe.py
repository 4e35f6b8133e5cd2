"""Linear probes of the label: TF-IDF and a linear model, cross-validated over groups."""

from collections.abc import Callable, Sequence

import numpy as np
from sklearn.base import TransformerMixin
from sklearn.dummy import DummyClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline

from ..data.record import seeded
from ..metrics.bootstrap import interval, resampled_mean
from ..metrics.scores import SCORES

FOLDS = 5
"""Number of folds of the cross-validation."""


def group_folds(groups: Sequence[str]) -> np.ndarray:
    """Return the fold of each row, shape (rows,): groups, in the order of a hash of their names, take turns."""
    names = sorted(set(groups), key=lambda name: (seeded("fold", name).random(), name))
    fold = {name: index % FOLDS for index, name in enumerate(names)}
    return np.array([fold[name] for name in groups], int)


def cross_val_row_scores(
    items: Sequence,
    targets: Sequence,
    groups: Sequence[str],
    views: Sequence[Sequence],
    metric: str,
    extra_train: tuple[Sequence, Sequence] = ((), ()),
    fit: Callable | None = None,
) -> list[np.ndarray]:
    """Return the value of `metric` for each row and view, from a probe fitted to the `items` of the other folds.

    A view has one item per row, such as another text of the same record. `extra_train` are items and targets of other
    groups that every probe is fitted to. `fit` maps (items, targets, metric) to a probe; the default is `text_probe`,
    whose items are texts. Each result has shape (rows,), all NaN if no row of another group exists.
    """
    fold = group_folds(groups)
    values = [np.full(len(items), np.nan) for _ in views]
    for index in sorted(set(fold.tolist())):
        inside, outside = np.flatnonzero(fold == index), np.flatnonzero(fold != index)
        train_items = [*extra_train[0], *(items[row] for row in outside)]
        if not train_items:
            break
        predict = (fit or text_probe)(train_items, [*extra_train[1], *(targets[row] for row in outside)], metric)
        for value, view in zip(values, views, strict=True):
            predictions = predict([view[row] for row in inside])
            value[inside] = SCORES[metric].of_rows([targets[row] for row in inside], predictions)
    return values


def score_difference(
    before: np.ndarray, after: np.ndarray, weights: np.ndarray, metric: str
) -> tuple[float, float, float]:
    """Return by how much the score of `after` is worse than that of `before`, and its paired interval (low, high).

    Both are from `cross_val_row_scores` on the same rows, shape (rows,); `weights` is from `group_weights`.
    """
    score = SCORES[metric]
    sign = 1 if score.higher_is_better else -1
    value = score.of_mean(np.mean(before)) - score.of_mean(np.mean(after))
    draws = score.of_mean(resampled_mean(before, weights)) - score.of_mean(resampled_mean(after, weights))
    return float(sign * value), *interval(sign * draws)


def text_probe(texts: Sequence[str], targets: Sequence, metric: str) -> Callable[[Sequence[str]], list]:
    """Fit a probe that maps texts to predictions: logistic regression for classes, ridge regression for numbers.

    Its features are TF-IDF of words and word pairs, untuned. If the texts have one class or no word, it predicts the
    most frequent class or the mean.
    """
    vectors = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\b\w+\b", sublinear_tf=True)
    return fit_probe(vectors if any(map(vectors.build_analyzer(), texts)) else None, texts, targets, metric)


def fit_probe(vectors: TransformerMixin | None, items: Sequence, targets: Sequence, metric: str) -> Callable:
    """Fit a linear model of `vectors` of the items, which maps items to predictions; without vectors a constant."""
    if SCORES[metric].higher_is_better:
        model = LogisticRegression(C=10, max_iter=1000) if vectors and len(set(targets)) > 1 else None
        model = make_pipeline(vectors, model) if model else DummyClassifier()
        model.fit(items, targets)
        return lambda tested: model.predict(list(tested)).tolist()
    scaled = np.log(targets) if metric == "rmse_log" else np.asarray(targets, float)
    if not vectors:
        return lambda tested: [_unscale(scaled.mean(), metric)] * len(tested)
    model = make_pipeline(vectors, Ridge()).fit(items, scaled)
    # The range of the targets bounds the predictions, as it does for the methods, so that no exponential overflows.
    return lambda tested: _unscale(np.clip(model.predict(tested), scaled.min(), scaled.max()), metric).tolist()


def _unscale(scaled: np.ndarray, metric: str) -> np.ndarray:
    """Return values in the unit of the target."""
    return np.exp(scaled) if metric == "rmse_log" else scaled
