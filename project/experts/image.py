"""Image -> text: what an expert said of the same pixels is taken from the store, and each picture is looked at once."""

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

ATTRIBUTES = "attributes-1"
"""Name of the packaged expert in the store's keys; it changes with whatever changes a description."""
LEAST = 0.05
"""The least probability of all descriptions in whose keys it is not named."""
BATCH = 16
"""Pictures that are looked at between two additions to the store."""


def describe_images(values: Sequence[Pictures], config: ExpertsConfig, store: Store) -> list[str]:
    """The description of each record's picture or pictures; a ready description stays as it is.

    Only the pictures of one batch are in memory. Raises OSError where one cannot be read.
    """
    texts = []
    bar = progress_bar()
    task = bar.add_task("describing images", total=len(values))
    with ExitStack() as shown:
        for start in range(0, len(values), BATCH):
            batch = values[start : start + BATCH]
            looks = [
                [picture if isinstance(picture, str) else _Look(picture, config) for picture in pictures(value)]
                for value in batch
            ]
            missing = {
                look.key: look for row in looks for look in row if isinstance(look, _Look) and not store.get(look.key)
            }
            if missing:
                if len(values) > BATCH and not bar.live.is_started:
                    shown.enter_context(bar)
                said = _described([look.pixels() for look in missing.values()], config)
                for look, text in zip(missing.values(), said, strict=True):
                    store.put(look.request, look.model, Completion(text, "stop", 0, 0, 0.0))
            texts += [
                " ".join(look if isinstance(look, str) else store.get(look.key).completion for look in row)
                for row in looks
            ]
            bar.advance(task, len(batch))
    return texts


class _Look:
    """One look of the expert at one picture: what it is called in the store, and the pixels."""

    _digests: dict[Path | ZippedImage, str] = {}  # of files, which the conditions of an evaluation read again and again

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
            self.model = f"efficientnet-lite0+{ATTRIBUTES}" if config.classifier else ATTRIBUTES
            content += f" top_k={config.top_k}"
            if config.least_probability != LEAST:
                content += f" least={config.least_probability}"
        self.request = Request("image", (("image", content),), 0.0, 0)
        self.key = self.request.key(self.model)

    def pixels(self) -> np.ndarray:
        """The pixels, read once."""
        if self._pixels is None:
            self._pixels = pixels(self._picture)
        return self._pixels


def _described(images: list[np.ndarray], config: ExpertsConfig) -> list[str]:
    if config.captioner:
        return caption_images(images, config)
    return describe_pixels(images, config.classifier, config.top_k, config.least_probability)


def image_summary(value: Pictures) -> str:
    """What a terminal can show of an image: its size, its file, or its ready description."""
    return ", ".join(
        f"{picture.width} x {picture.height} pixels" if hasattr(picture, "width") else str(picture)
        for picture in pictures(value)
    )
