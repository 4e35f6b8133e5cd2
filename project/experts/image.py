"""Describe images. Each picture is described once; the store keeps the description under a digest of its pixels."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from ..config.schema import ExpertsConfig
from ..data.images import Picture, Pictures, ZippedImage, digest, pictures, pixels
from ..llm.protocol import Completion, Request
from ..llm.store.store import Store
from ..runtime.progress import progress_bar
from .captioner import caption_images, captioner_name
from .classifier import describe_pixels

_ATTRIBUTES = "attributes-1"
"""Name of the packaged expert in the store's keys. Raise it with every change that changes descriptions."""
_KEYLESS_PROBABILITY = 0.05
"""Keys do not name this least_probability: descriptions were stored before the setting existed."""
_RECORDS_PER_WRITE = 16
"""Number of records whose pictures are described between two writes to the store."""


def describe_images(values: Sequence[Pictures], config: ExpertsConfig, store: Store) -> list[str]:
    """Return one description for each record's picture or pictures; ready descriptions stay as they are.

    Only one batch of pictures is in memory at a time. Raises OSError if a picture cannot be read.
    """
    texts = []
    bar = progress_bar()
    task = bar.add_task("describing images", total=len(values))
    with ExitStack() as stack:
        for start in range(0, len(values), _RECORDS_PER_WRITE):
            batch = values[start : start + _RECORDS_PER_WRITE]
            rows = [
                [
                    picture if isinstance(picture, str) else _DescriptionRequest(picture, config)
                    for picture in pictures(value)
                ]
                for value in batch
            ]
            missing = {
                item.key: item
                for row in rows
                for item in row
                if isinstance(item, _DescriptionRequest) and not store.get(item.key)
            }
            if missing:
                if len(values) > _RECORDS_PER_WRITE and not bar.live.is_started:
                    stack.enter_context(bar)
                descriptions = _describe([item.pixels() for item in missing.values()], config)
                for item, text in zip(missing.values(), descriptions, strict=True):
                    store.put(item.request, item.model, Completion(text, "stop", 0, 0, 0.0))
            texts += [
                " ".join(item if isinstance(item, str) else store.get(item.key).completion for item in row)
                for row in rows
            ]
            bar.advance(task, len(batch))
    return texts


class _DescriptionRequest:
    """The request for the description of one picture, its key in the store, and the pixels."""

    # Digests of files, cached because every condition of an evaluation reads the same files again.
    _digests: dict[Path | ZippedImage, str] = {}

    def __init__(self, picture: Picture, config: ExpertsConfig):
        self._picture, self._pixels = picture, None
        content = self._digests.get(picture) if isinstance(picture, Path | ZippedImage) else None
        if content is None:
            content = digest(self.pixels())
            if isinstance(picture, Path | ZippedImage):
                self._digests[picture] = content
        if config.captioner:
            self.model = captioner_name(config)
        else:
            self.model = f"efficientnet-lite0+{_ATTRIBUTES}" if config.classifier else _ATTRIBUTES
            content += f" top_k={config.top_k}"
            if config.least_probability != _KEYLESS_PROBABILITY:
                content += f" least={config.least_probability}"
        self.request = Request("image", (("image", content),), 0.0, 0)
        self.key = self.request.key(self.model)

    def pixels(self) -> np.ndarray:
        """Return the pixels, and read them only once."""
        if self._pixels is None:
            self._pixels = pixels(self._picture)
        return self._pixels


def _describe(images: list[np.ndarray], config: ExpertsConfig) -> list[str]:
    if config.captioner:
        return caption_images(images, config)
    return describe_pixels(images, config.classifier, config.top_k, config.least_probability)


def image_summary(value: Pictures) -> str:
    """Return what a terminal can show of an image: its size, its file, or its ready description."""
    return ", ".join(
        f"{picture.width} x {picture.height} pixels" if hasattr(picture, "width") else str(picture)
        for picture in pictures(value)
    )
