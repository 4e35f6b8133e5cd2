"""Corrupt the structure of a record: missing modalities and changed order."""

from dataclasses import replace

from ..data.record import MODALITIES, Record


def without(record: Record, modalities: tuple[str, ...]) -> Record:
    """Return the record without these modalities."""
    return replace(record, **dict.fromkeys(modalities))


def reordered(record: Record, order: tuple[str, ...]) -> Record:
    """Return the record with its modalities in another order; modalities that `order` does not name come last."""
    return replace(record, order=(*order, *(name for name in MODALITIES if name not in order)))
