"""Numeric features of raw modalities: table columns, TF-IDF of the text, features of a frozen image network."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix, hstack
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import normalize

from ..data.record import Record
from .image_features import extract_image_features, unchanged_images
from .tabular_features import MISSING, Columns

_MAX_TERMS = 50_000
"""Size of the TF-IDF vocabulary of words and word pairs; the most frequent ones are used."""
_MAX_COMPONENTS = 50
"""Dimensions of the text components, and of the image components."""


@dataclass(frozen=True)
class Raw:
    """Features that need no fitting: normal scores (rows, numbers), codes (rows, categories), texts, and image
    features (rows, 1280), NaN for a missing image; None if images are not used.
    """

    scores: np.ndarray
    codes: np.ndarray
    texts: list[str]
    images: np.ndarray | None


def raw_values(
    records: Sequence[Record], originals: Sequence[Record], columns: Columns, images: bool, device: str
) -> Raw:
    """Return the raw features of (corrupted) records; the features of unchanged pictures are cached."""
    values = [record.image for record in records]
    return Raw(
        columns.scores(records),
        columns.codes(records),
        [columns.text(record) for record in records],
        extract_image_features(values, unchanged_images(records, originals), device) if images else None,
    )


class Features:
    """Feature transforms fitted to the training rows: TF-IDF, and the principal components of texts and images."""

    def __init__(self, train: Raw, sizes: Sequence[int], seed: int):
        self._sizes = list(sizes)
        self._tfidf = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, max_features=_MAX_TERMS)
        try:
            terms = self._tfidf.fit_transform(train.texts)
        except ValueError:  # no training row has a word
            self._tfidf = self._svd = None
        else:
            self._svd = TruncatedSVD(min(_MAX_COMPONENTS, *terms.shape), random_state=seed).fit(terms)
        self._pca = None
        if train.images is not None:
            images = _unit_length(train.images[~np.isnan(train.images).any(1)])
            self._pca = (
                PCA(min(_MAX_COMPONENTS, len(images)), random_state=seed).fit(images) if len(images) > 1 else None
            )

    @property
    def categorical(self) -> list[int]:
        """Indices of the categorical columns of `trees`."""
        return list(range(len(self._sizes)))

    def trees(self, rows: Raw) -> np.ndarray:
        """Return codes, normal scores, then components of text and image, shape (rows, columns); NaN if missing."""
        parts = [np.where(rows.codes == MISSING, np.nan, rows.codes), rows.scores]
        if self._svd is not None:
            empty = np.array([not text.strip() for text in rows.texts])
            parts.append(np.where(empty[:, None], np.nan, self._svd.transform(self._tfidf.transform(rows.texts))))
        if self._pca is not None:
            parts.append(self._components(rows))
        return np.hstack(parts)

    def linear(self, rows: Raw) -> csr_matrix:
        """Return numbers with missing flags, one-hot categories, image components and TF-IDF, shape (rows, columns).

        Each block has about unit length, so that one penalty suits all; missing values are zeros.
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
        """Return the components of the images; NaN for a missing image."""
        is_missing = np.isnan(rows.images).any(1)
        return np.where(is_missing[:, None], np.nan, self._pca.transform(_unit_length(rows.images)))


def _unit_length(images: np.ndarray) -> np.ndarray:
    """Return features of unit length; zeros for a missing image."""
    return normalize(np.nan_to_num(images))
