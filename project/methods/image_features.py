"""Image inputs of the models on raw modalities: features of a frozen network, or small pixels."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ..config.schema import Config
from ..data.images import Picture, Pictures, ZippedImage, digest, pictures, pixels
from ..data.record import Record
from ..experts import classifier
from ..experts.classifier import check_classifier

FEATURE_WIDTH = 1280
"""Length of the frozen network's features."""
_SIDE = 64
"""Side of the small pixels."""
_BATCH_SIZE = 16
"""Pictures in one forward pass of the frozen network."""

_CACHE: dict[Path | ZippedImage | str, np.ndarray] = {}
"""Features of uncorrupted pictures, by file or content: every epoch, condition and method reads them again."""


def has_pixels(value: Pictures | None) -> bool:
    """Return True if there is a picture with pixels; a ready description has none."""
    return value is not None and any(not isinstance(picture, str) for picture in pictures(value))


def unchanged_images(records: Sequence[Record], originals: Sequence[Record]) -> list[bool]:
    """Return for each record whether its image is the original one."""
    return [record.image is original.image for record, original in zip(records, originals, strict=True)]


def extract_image_features(values: Sequence[Pictures | None], cacheable: Sequence[bool], device: str) -> np.ndarray:
    """Return features of the frozen network, averaged over a row's pictures: shape (rows, FEATURE_WIDTH).

    Rows without a picture are NaN. The features of `cacheable` rows are computed once and cached in memory; caching
    corrupted pictures would not pay, because their noise is drawn again.
    """
    rows = [
        [picture for picture in pictures(value) if not isinstance(picture, str)] if has_pixels(value) else []
        for value in values
    ]
    keys = [
        [_key(picture) if is_cacheable else object() for picture in row]
        for row, is_cacheable in zip(rows, cacheable, strict=True)
    ]
    uncached = {
        key: picture
        for row, row_keys in zip(rows, keys, strict=True)
        for picture, key in zip(row, row_keys, strict=True)
        if key not in _CACHE
    }
    features = {}
    for start in range(0, len(uncached), _BATCH_SIZE):
        batch = list(uncached)[start : start + _BATCH_SIZE]
        values_of_batch = classifier.backbone_features([pixels(uncached[key]) for key in batch], device)
        features |= zip(batch, values_of_batch, strict=True)
    _CACHE.update({key: value for key, value in features.items() if isinstance(key, Path | ZippedImage | str)})
    means = [
        np.mean([features[key] if key in features else _CACHE[key] for key in row], axis=0)
        if row
        else np.full(FEATURE_WIDTH, np.nan)
        for row in keys
    ]
    return np.stack(means).astype(np.float32)


def _key(picture: Picture) -> Path | ZippedImage | str:
    """Return the file of a picture, or the digest of a picture in memory."""
    return picture if isinstance(picture, Path | ZippedImage) else digest(pixels(picture))


def small_pixels(values: Sequence[Pictures | None]) -> torch.Tensor:
    """Return the first picture of each row, uint8 of shape (rows, 3, 64, 64); zeros if a row has none."""
    batch = torch.zeros(len(values), 3, _SIDE, _SIDE, dtype=torch.uint8)
    for index, value in enumerate(values):
        if has_pixels(value):
            first = next(picture for picture in pictures(value) if not isinstance(picture, str))
            small = Image.fromarray(pixels(first)).resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)
            batch[index] = torch.from_numpy(np.array(small)).permute(2, 0, 1)
    return batch


def check_image(config: Config) -> None:
    """Check the image network of a method on raw modalities. Raises UserError if it is not installed."""
    if config.model.image == "efficientnet_lite0":
        alternative = {"fusion": "small", "boosting": "none"}[config.model.kind]
        check_classifier("model.image=efficientnet_lite0", f"model.image={alternative}")
