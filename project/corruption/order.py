"""The order in which the modalities are read."""

from dataclasses import replace

from ..record import Record


def reordered(record: Record, order: tuple[str, ...]) -> Record:
    """The record with its modalities read in another order."""
    return replace(record, order=order)
