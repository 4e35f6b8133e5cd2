"""What the image of a record may be, and its pixels."""

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
"""In memory, a file, a member of a zip; or, as text, a ready description where the pixels are not there."""

Pictures = Picture | tuple[Picture, ...]
"""The image of a record: one picture, or several."""


@lru_cache(maxsize=2)
def archive(path: Path) -> zipfile.ZipFile:
    """An open archive; its table of contents, which may hold a million names, is read once."""
    return zipfile.ZipFile(path)


def pixels(picture: Image.Image | Path | ZippedImage) -> np.ndarray:
    """The picture as uint8 RGB, shape (height, width, 3). Raises OSError, or KeyError for no such member."""
    if isinstance(picture, Image.Image):
        return np.asarray(picture.convert("RGB"))
    source = picture if isinstance(picture, Path) else BytesIO(archive(picture.archive).read(picture.member))
    with Image.open(source) as image:
        return np.asarray(image.convert("RGB"))


def png(values: np.ndarray) -> bytes:
    """The image, shape (height, width, 3), as a PNG file, which loses nothing."""
    file = BytesIO()
    Image.fromarray(values).save(file, "PNG")
    return file.getvalue()


def digest(values: np.ndarray) -> str:
    """What names the content of an image, shape (height, width, 3), whatever file it came from."""
    return f"{values.shape} {hashlib.sha256(values.tobytes()).hexdigest()}"


def pictures(value: Pictures) -> tuple[Picture, ...]:
    """The single pictures."""
    return value if isinstance(value, tuple) else (value,)


def map_pictures(change: Callable[[np.ndarray], np.ndarray], value: Pictures) -> Pictures:
    """The pictures with their pixels changed, clipped and rounded to 8 bits; `change` gets float64 in [0, 1] of shape
    (height, width, 3).

    A ready description has no pixels and stays as it is.
    """

    def changed(picture: Picture) -> Picture:
        if isinstance(picture, str):
            return picture
        return Image.fromarray(np.rint(np.clip(change(pixels(picture) / 255), 0, 1) * 255).astype(np.uint8))

    return tuple(map(changed, value)) if isinstance(value, tuple) else changed(value)
