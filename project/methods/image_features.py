"""Pictures for the models on raw modalities: frozen features, or small pixels for a network of their own."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ..config.schema import Config
from ..data.images import Picture, Pictures, ZippedImage, digest, pictures, pixels
from ..experts import classifier
from ..experts.classifier import check_classifier

WIDTH = 1280
"""Length of the frozen network's features."""
SIDE = 64
"""Side of the small pixels."""
BATCH = 16
"""Pictures that the frozen network sees at once."""

_KEPT: dict[Path | ZippedImage | str, np.ndarray] = {}
"""Features of pictures as they are, by file or content: every epoch, condition and method reads them again."""


def has_pixels(value: Pictures | None) -> bool:
    """Whether there is a picture to see; a ready description is none."""
    return value is not None and any(not isinstance(picture, str) for picture in pictures(value))


def extract_image_features(values: Sequence[Pictures | None], keep: Sequence[bool], device: str) -> np.ndarray:
    """Features of the frozen network, the mean over a row's pictures: shape (rows, WIDTH), NaN where there is none.

    Those of the rows to `keep` are computed once and kept in memory; what noise is drawn anew on is not worth it.
    """
    rows = [
        [picture for picture in pictures(value) if not isinstance(picture, str)] if has_pixels(value) else []
        for value in values
    ]
    keys = [[_key(picture) if kept else object() for picture in row] for row, kept in zip(rows, keep, strict=True)]
    wanted = {
        key: picture
        for row, row_keys in zip(rows, keys, strict=True)
        for picture, key in zip(row, row_keys, strict=True)
        if key not in _KEPT
    }
    found = {}
    for start in range(0, len(wanted), BATCH):
        some = list(wanted)[start : start + BATCH]
        found |= zip(some, classifier.backbone_features([pixels(wanted[key]) for key in some], device), strict=True)
    _KEPT.update({key: value for key, value in found.items() if isinstance(key, Path | ZippedImage | str)})
    means = [
        np.mean([found[key] if key in found else _KEPT[key] for key in row], axis=0) if row else np.full(WIDTH, np.nan)
        for row in keys
    ]
    return np.stack(means).astype(np.float32)


def _key(picture: Picture) -> Path | ZippedImage | str:
    """A file's name, or the content of a picture in memory."""
    return picture if isinstance(picture, Path | ZippedImage) else digest(pixels(picture))


def small_pixels(values: Sequence[Pictures | None]) -> torch.Tensor:
    """The first picture of each row, uint8 of shape (rows, 3, SIDE, SIDE); zeros where there is none."""
    found = torch.zeros(len(values), 3, SIDE, SIDE, dtype=torch.uint8)
    for index, value in enumerate(values):
        if has_pixels(value):
            first = next(picture for picture in pictures(value) if not isinstance(picture, str))
            small = Image.fromarray(pixels(first)).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
            found[index] = torch.from_numpy(np.array(small)).permute(2, 0, 1)
    return found


def check_image(config: Config) -> None:
    """What a method on raw modalities sees images by. Raises UserError where it is not to be had."""
    if config.model.image == "efficientnet_lite0":
        instead = {"fusion": "small", "boosting": "none"}[config.model.kind]
        check_classifier("model.image=efficientnet_lite0", f"model.image={instead}")
