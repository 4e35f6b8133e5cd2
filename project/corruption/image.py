"""Damage of images."""

import numpy as np

from ..record import Record, pixels, with_pixels


def gaussian_noise(record: Record, level: float, rng: np.random.Generator) -> Record:
    """Independent Gaussian noise of standard deviation `level` on pixels in [0, 1], then clipped."""
    values = pixels(record)
    return with_pixels(record, values + level * rng.standard_normal(values.shape))
