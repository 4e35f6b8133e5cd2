"""How much of the label a plain reader finds in texts: TF-IDF and a linear model, each group read by one that never
saw it."""

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
"""Parts that the groups are dealt into."""


def group_folds(groups: Sequence[str]) -> np.ndarray:
    """The fold of each row, shape (rows,): whole groups, in the order of a hash of their names, are dealt in turn."""
    names = sorted(set(groups), key=lambda name: (seeded("fold", name).random(), name))
    fold = {name: index % FOLDS for index, name in enumerate(names)}
    return np.array([fold[name] for name in groups], int)


def cross_val_row_scores(
    learned: Sequence,
    targets: Sequence,
    groups: Sequence[str],
    views: Sequence[Sequence],
    metric: str,
    besides: tuple[Sequence, Sequence] = ((), ()),
    fit: Callable | None = None,
) -> list[np.ndarray]:
    """What each row adds to the metric, in each view, when a probe reads it that learned from the other folds' texts.

    The views have the rows of `learned`: other texts of the same records. `besides` are texts and targets of further
    groups, which every probe learns from. `fit` makes the probe, of whatever stands there in place of texts; without it
    `reader` does. Shape (rows,) for each view; all NaN where no row of another group is there.
    """
    fold = group_folds(groups)
    values = [np.full(len(learned), np.nan) for _ in views]
    for index in sorted(set(fold.tolist())):
        inside, outside = np.flatnonzero(fold == index), np.flatnonzero(fold != index)
        texts = [*besides[0], *(learned[row] for row in outside)]
        if not texts:
            break
        read = (fit or text_probe)(texts, [*besides[1], *(targets[row] for row in outside)], metric)
        for value, view in zip(values, views, strict=True):
            answers = read([view[row] for row in inside])
            value[inside] = SCORES[metric].of_rows([targets[row] for row in inside], answers)
    return values


def score_difference(
    before: np.ndarray, after: np.ndarray, weights: np.ndarray, metric: str
) -> tuple[float, float, float]:
    """By how much the score of `after` is worse than that of `before`, on the same rows, and its paired interval.

    Both are from `held_out`, shape (rows,); `weights` is from `group_weights`.
    """
    score = SCORES[metric]
    sign = 1 if score.higher_is_better else -1
    value = score.of_mean(np.mean(before)) - score.of_mean(np.mean(after))
    draws = score.of_mean(resampled_mean(before, weights)) - score.of_mean(resampled_mean(after, weights))
    return float(sign * value), *interval(sign * draws)


def text_probe(texts: Sequence[str], targets: Sequence, metric: str) -> Callable[[Sequence[str]], list]:
    """A probe fitted to texts: texts -> answers. Logistic regression for classes, ridge regression for numbers.

    TF-IDF of words and pairs of words; nothing is tuned. Of a single class, or of texts without a word, it learns the
    most frequent answer.
    """
    vectors = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\b\w+\b", sublinear_tf=True)
    return fit_probe(vectors if any(map(vectors.build_analyzer(), texts)) else None, texts, targets, metric)


def fit_probe(vectors: TransformerMixin | None, items: Sequence, targets: Sequence, metric: str) -> Callable:
    """A linear model of what `vectors` makes of the items: items -> answers; without vectors, the most frequent one."""
    if SCORES[metric].higher_is_better:
        model = LogisticRegression(C=10, max_iter=1000) if vectors and len(set(targets)) > 1 else None
        model = make_pipeline(vectors, model) if model else DummyClassifier()
        model.fit(items, targets)
        return lambda found: model.predict(list(found)).tolist()
    learned = np.log(targets) if metric == "rmse_log" else np.asarray(targets, float)
    if not vectors:
        return lambda found: [_unit(learned.mean(), metric)] * len(found)
    model = make_pipeline(vectors, Ridge()).fit(items, learned)
    # Bounded as the model's own answers are, so that no exponential overflows.
    return lambda found: _unit(np.clip(model.predict(found), learned.min(), learned.max()), metric).tolist()


def _unit(learned: np.ndarray, metric: str) -> np.ndarray:
    """What was learned, in the target's own unit."""
    return np.exp(learned) if metric == "rmse_log" else learned
