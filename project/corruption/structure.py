"""Corruptions of a record's structure: missing modalities and changed order."""

from dataclasses import replace

from ..data.record import MODALITIES, Record


def without(record: Record, modalities: tuple[str, ...]) -> Record:
    """The record without these modalities."""
    return replace(record, **dict.fromkeys(modalities))


def reordered(record: Record, order: tuple[str, ...]) -> Record:
    """The record with its modalities read in another order; those that it does not name come last."""
    return replace(record, order=(*order, *(name for name in MODALITIES if name not in order)))
