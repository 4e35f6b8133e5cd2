"""Corrupt images. A ready description has no pixels and stays unchanged."""

from collections.abc import Callable
from io import BytesIO

import numpy as np
from PIL import Image, ImageFilter

from ..data.images import Pictures, map_pictures

BLUR = 1 / 32
"""Standard deviation of the strongest blur, as a share of the shorter side: 7 pixels for a side of 224."""


def gaussian_noise(image: Pictures, level: float, rng: np.random.Generator) -> Pictures:
    """Add independent Gaussian noise of standard deviation `level` to pixels in [0, 1], and clip them."""
    return map_pictures(lambda values: values + level * rng.standard_normal(values.shape), image)


def blur(image: Pictures, level: float, rng: np.random.Generator) -> Pictures:
    """Blur as a camera out of focus: Gaussian, with a standard deviation of `level * BLUR` of the shorter side."""

    def blur_picture(picture: Image.Image) -> Image.Image:
        return picture.filter(ImageFilter.GaussianBlur(level * BLUR * min(picture.size)))

    return _map_8bit(blur_picture, image)


def jpeg(image: Pictures, level: float, rng: np.random.Generator) -> Pictures:
    """Compress as JPEG of quality 100 / 20 ** level, which is 22 at level 0.5 and 5 at level 1.

    Qualities below 5 change little more. The qualities 25 to 7 of ImageNet-C (Hendrycks and Dietterich 2019,
    arXiv 1903.12261) are levels 0.46 to 0.89.
    """

    def compress_picture(picture: Image.Image) -> Image.Image:
        file = BytesIO()
        picture.save(file, "JPEG", quality=round(100 / 20**level))
        return Image.open(file)

    return _map_8bit(compress_picture, image) if level > 0 else image


def darkness(image: Pictures, level: float, rng: np.random.Generator) -> Pictures:
    """Darken as in low light: pixels lose the share `level` of their brightness and are rounded to 8 bits."""
    return map_pictures(lambda values: (1 - level) * values, image)


def crop(image: Pictures, level: float, rng: np.random.Generator) -> Pictures:
    """Crop as a photo framed too tightly: each side loses the share `level`, and the rest is resized to the old size.

    The position is drawn. The window of a higher level lies within that of a lower one and has at least one pixel.
    """

    def crop_picture(picture: Image.Image) -> Image.Image:
        shifts = rng.random(2)
        width, height = (max(1.0, (1 - level) * side) for side in picture.size)
        left, top = shifts[0] * (picture.width - width), shifts[1] * (picture.height - height)
        return picture.resize(picture.size, Image.Resampling.BILINEAR, box=(left, top, left + width, top + height))

    return _map_8bit(crop_picture, image)


def _map_8bit(change: Callable[[Image.Image], Image.Image], image: Pictures) -> Pictures:
    """Apply a function of 8-bit RGB pictures, where map_pictures applies one of arrays in [0, 1]."""

    def change_values(values: np.ndarray) -> np.ndarray:
        return np.asarray(change(Image.fromarray(np.rint(values * 255).astype(np.uint8)))) / 255

    return map_pictures(change_values, image)
