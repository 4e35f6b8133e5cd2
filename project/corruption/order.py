"""The order in which the modalities are read."""

from dataclasses import replace

from ..data.record import MODALITIES, Record


def reordered(record: Record, order: tuple[str, ...]) -> Record:
    """The record with its modalities read in another order; those that it does not name come last."""
    return replace(record, order=(*order, *(name for name in MODALITIES if name not in order)))
