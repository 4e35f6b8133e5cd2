"""Whole modalities that are not there."""

from dataclasses import replace

from ..data.record import Record


def without(record: Record, modalities: tuple[str, ...]) -> Record:
    """The record without these modalities."""
    return replace(record, **dict.fromkeys(modalities))
