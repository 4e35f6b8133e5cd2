"""One row of numbers for each record: its table, TF-IDF of its text, and the frozen features of its image."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix, hstack
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import normalize

from ..data.record import Record
from .image_features import extract_image_features
from .tabular_features import MISSING, Columns

TERMS = 50_000
"""Words and pairs of words that are told apart at most, the most frequent ones."""
COMPONENTS = 50
"""Dimensions that a text, and an image, are brought down to at most."""


@dataclass(frozen=True)
class Raw:
    """Records before anything is learned: normal scores (rows, numbers), codes (rows, categories), texts, and image
    features (rows, 1280), NaN where there is none, or None where images are not looked at.
    """

    scores: np.ndarray
    codes: np.ndarray
    texts: list[str]
    images: np.ndarray | None


def raw_values(
    records: Sequence[Record], originals: Sequence[Record], columns: Columns, images: bool, device: str
) -> Raw:
    """Records as they are seen; the features of pictures that are still the originals' are kept."""
    keep = [record.image is own.image for record, own in zip(records, originals, strict=True)]
    return Raw(
        columns.scores(records),
        columns.codes(records),
        [columns.text(record) for record in records],
        extract_image_features([record.image for record in records], keep, device) if images else None,
    )


class Features:
    """What is learned from the training rows alone: words and their weights, and the directions of most variance."""

    def __init__(self, train: Raw, sizes: Sequence[int], seed: int):
        self._sizes = list(sizes)
        self._tfidf = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, max_features=TERMS)
        try:
            terms = self._tfidf.fit_transform(train.texts)
        except ValueError:  # no training row has a word
            self._tfidf = self._svd = None
        else:
            self._svd = TruncatedSVD(min(COMPONENTS, *terms.shape), random_state=seed).fit(terms)
        self._pca = None
        if train.images is not None:
            seen = _directions(train.images[~np.isnan(train.images).any(1)])
            self._pca = PCA(min(COMPONENTS, len(seen)), random_state=seed).fit(seen) if len(seen) > 1 else None

    @property
    def categorical(self) -> list[int]:
        """Which columns of `trees` are categories."""
        return list(range(len(self._sizes)))

    def trees(self, rows: Raw) -> np.ndarray:
        """Codes, normal scores, then components of text and image, shape (rows, columns); NaN for what is missing."""
        parts = [np.where(rows.codes == MISSING, np.nan, rows.codes), rows.scores]
        if self._svd is not None:
            empty = np.array([not text.strip() for text in rows.texts])
            parts.append(np.where(empty[:, None], np.nan, self._svd.transform(self._tfidf.transform(rows.texts))))
        if self._pca is not None:
            parts.append(self._components(rows))
        return np.hstack(parts)

    def linear(self, rows: Raw) -> csr_matrix:
        """TF-IDF, then numbers with their absence, categories one by one and image components: each block of about
        unit length, so that one penalty fits all; zeros for what is missing.
        """
        missing = np.isnan(rows.scores)
        blocks = [np.hstack([np.nan_to_num(rows.scores), missing]) / max(1, np.sqrt(rows.scores.shape[1]))]
        blocks += [
            np.eye(size)[codes] / np.sqrt(len(self._sizes))
            for size, codes in zip(self._sizes, rows.codes.T, strict=True)
        ]
        if self._pca is not None:
            length = np.sqrt(self._pca.explained_variance_.sum()) or 1.0
            blocks.append(np.nan_to_num(self._components(rows)) / length)
        if self._tfidf is not None:
            blocks.append(self._tfidf.transform(rows.texts))
        return csr_matrix(hstack([csr_matrix(block) for block in blocks]))

    def _components(self, rows: Raw) -> np.ndarray:
        """Components of the images, NaN where there is none."""
        absent = np.isnan(rows.images).any(1)
        return np.where(absent[:, None], np.nan, self._pca.transform(_directions(rows.images)))


def _directions(images: np.ndarray) -> np.ndarray:
    """Features of unit length, zeros where there is none."""
    return normalize(np.nan_to_num(images))
