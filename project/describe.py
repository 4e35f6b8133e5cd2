"""Record -> descriptions: one expert a modality. What an image expert said is kept by the content of the pixels."""

import hashlib
from collections.abc import Sequence

import numpy as np

from .alignment import Parts
from .experts.image import describe_images
from .experts.table import describe_table
from .llm.engine import Completion, Request
from .llm.store import Store
from .progress import progress
from .record import Record, pixels
from .schema import Experts

IMAGE_EXPERT = "attributes-1"
"""Name of the image expert in the store's keys; it changes with whatever changes a description."""

BATCH = 16
"""Images that the classifier reads at a time."""


def describe(records: Sequence[Record], config: Experts, store: Store) -> list[Parts]:
    """The present modalities of each record in its reading order, each as text of at most max_words words."""
    images = [np.rint(pixels(record) * 255).astype(np.uint8) for record in records if "image" in record.present]
    seen = iter(_described_images(images, config, store))
    experts = {"image": lambda record: next(seen), "text": lambda record: record.text, "table": describe_table}
    descriptions = []
    for record in records:
        parts = ((name, " ".join(experts[name](record).split()[: config.max_words])) for name in record.present)
        descriptions.append(tuple(parts))
    return descriptions


def _described_images(images: list[np.ndarray], config: Experts, store: Store) -> list[str]:
    """The image expert's words, from the store where the same pixels were described before."""
    model = f"efficientnet-lite0+{IMAGE_EXPERT}" if config.classifier else IMAGE_EXPERT
    requests = []
    for image in images:
        content = f"{image.shape} {hashlib.sha256(image.tobytes()).hexdigest()} top_k={config.top_k}"
        requests.append(Request("image", (("image", content),), 0.0, 0))
    missing = {request.key(model): index for index, request in enumerate(requests) if not store.get(request.key(model))}
    indices = list(missing.values())
    with progress() as bar:
        task = bar.add_task("describing images", total=len(indices), visible=len(indices) > BATCH)
        for start in range(0, len(indices), BATCH):
            batch = indices[start : start + BATCH]
            texts = describe_images([images[index] for index in batch], config.classifier, config.top_k)
            for index, text in zip(batch, texts, strict=True):
                store.put(requests[index], model, Completion(text, "stop", 0, 0, 0.0))
            bar.advance(task, len(batch))
    return [store.get(request.key(model)).completion for request in requests]
