"""Damage of images. A ready description has no pixels and stays as it is."""

from collections.abc import Callable
from io import BytesIO

import numpy as np
from PIL import Image, ImageFilter

from ..data.images import Pictures, map_pictures

BLUR = 1 / 32
"""Standard deviation of the strongest blur, as a share of the shorter side: 7 pixels of 224."""


def gaussian_noise(image: Pictures, level: float, rng: np.random.Generator) -> Pictures:
    """Independent Gaussian noise of standard deviation `level` on pixels in [0, 1], then clipped."""
    return map_pictures(lambda values: values + level * rng.standard_normal(values.shape), image)


def blur(image: Pictures, level: float, rng: np.random.Generator) -> Pictures:
    """A camera out of focus: Gaussian blur whose standard deviation is `level` times BLUR of the shorter side."""

    def blurred(picture: Image.Image) -> Image.Image:
        return picture.filter(ImageFilter.GaussianBlur(level * BLUR * min(picture.size)))

    return _each_picture(blurred, image)


def jpeg(image: Pictures, level: float, rng: np.random.Generator) -> Pictures:
    """Lossy compression: JPEG of quality 100 / 20 ** level, which is 22 at level 0.5 and 5 at level 1; less changes
    little more. ImageNet-C's qualities (Hendrycks and Dietterich 2019, arXiv 1903.12261), 25 to 7, are levels 0.46 to
    0.89.
    """

    def compressed(picture: Image.Image) -> Image.Image:
        file = BytesIO()
        picture.save(file, "JPEG", quality=round(100 / 20**level))
        return Image.open(file)

    return _each_picture(compressed, image) if level > 0 else image


def darkness(image: Pictures, level: float, rng: np.random.Generator) -> Pictures:
    """Too little light: pixels lose the share `level` of their brightness, and what 8 bits do not hold is lost."""
    return map_pictures(lambda values: (1 - level) * values, image)


def crop(image: Pictures, level: float, rng: np.random.Generator) -> Pictures:
    """A photo framed too tightly: each side loses the share `level`, and the rest is shown at the old size.

    The place is drawn, and the window of a higher level lies within that of a lower one. One pixel is always left.
    """

    def cropped(picture: Image.Image) -> Image.Image:
        places = rng.random(2)
        kept = [max(1.0, (1 - level) * side) for side in picture.size]
        left, top = (place * (side - length) for place, side, length in zip(places, picture.size, kept, strict=True))
        return picture.resize(picture.size, Image.Resampling.BILINEAR, box=(left, top, left + kept[0], top + kept[1]))

    return _each_picture(cropped, image)


def _each_picture(change: Callable[[Image.Image], Image.Image], image: Pictures) -> Pictures:
    """The pictures changed by what works on 8-bit RGB pictures, not on arrays."""

    def changed(values: np.ndarray) -> np.ndarray:
        return np.asarray(change(Image.fromarray(np.rint(values * 255).astype(np.uint8)))) / 255

    return map_pictures(changed, image)
