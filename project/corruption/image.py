"""Damage of images."""

import numpy as np

from ..image import Pictures, each


def gaussian_noise(image: Pictures, level: float, rng: np.random.Generator) -> Pictures:
    """Independent Gaussian noise of standard deviation `level` on pixels in [0, 1], then clipped."""
    return each(lambda values: values + level * rng.standard_normal(values.shape), image)
