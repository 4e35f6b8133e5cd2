"""Read the images of records: in memory, in a file, in a zip archive, or as a ready description."""

import hashlib
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class ZippedImage:
    """An image inside a zip archive, read without unpacking the archive."""

    archive: Path
    member: str

    def __str__(self) -> str:
        return f"{self.archive}:{self.member}"


Picture = Image.Image | Path | ZippedImage | str
"""An image in memory, a file, or a member of a zip archive; a str is a ready description that replaces the pixels."""

Pictures = Picture | tuple[Picture, ...]
"""The image of a record: one picture or several."""


@lru_cache(maxsize=2)
def archive(path: Path) -> zipfile.ZipFile:
    """Return the open archive; the cache saves reading its list of up to a million members again."""
    return zipfile.ZipFile(path)


def pixels(picture: Image.Image | Path | ZippedImage) -> np.ndarray:
    """Return the picture as uint8 RGB of shape (height, width, 3).

    Raises OSError if it cannot be read, and KeyError if the archive has no such member.
    """
    if isinstance(picture, Image.Image):
        return np.asarray(picture.convert("RGB"))
    source = picture if isinstance(picture, Path) else BytesIO(archive(picture.archive).read(picture.member))
    with Image.open(source) as image:
        return np.asarray(image.convert("RGB"))


def png(values: np.ndarray) -> bytes:
    """Return the image of shape (height, width, 3) as a PNG file, which is lossless."""
    file = BytesIO()
    Image.fromarray(values).save(file, "PNG")
    return file.getvalue()


def digest(values: np.ndarray) -> str:
    """Return a name of the pixels of shape (height, width, 3), which does not depend on their file."""
    return f"{values.shape} {hashlib.sha256(values.tobytes()).hexdigest()}"


def pictures(value: Pictures) -> tuple[Picture, ...]:
    """Return the pictures as a tuple."""
    return value if isinstance(value, tuple) else (value,)


def map_pictures(change: Callable[[np.ndarray], np.ndarray], value: Pictures) -> Pictures:
    """Return the pictures with changed pixels, clipped and rounded to 8 bits.

    `change` gets and returns float64 in [0, 1] of shape (height, width, 3). A ready description has no pixels and stays
    unchanged.
    """

    def change_picture(picture: Picture) -> Picture:
        if isinstance(picture, str):
            return picture
        return Image.fromarray(np.rint(np.clip(change(pixels(picture) / 255), 0, 1) * 255).astype(np.uint8))

    return tuple(map(change_picture, value)) if isinstance(value, tuple) else change_picture(value)
