"""Check the rows and images of a data set before a run."""

from collections import Counter
from pathlib import Path

from PIL import Image

from ..config.schema import DataConfig
from .column_inference import printable
from .images import ZippedImage, archive, pictures, pixels
from .near_duplicates import near_copies
from .rows import Rows
from .splits import SPLITS

FEW_ROWS = 20
"""A split with fewer rows gets a warning, since its scores say little."""
FEW_OF_A_CLASS = 5
"""A class with fewer training rows gets a warning."""
MAX_DECODED = 200
"""Maximum number of images that are decoded; of the others only the existence of the file is checked."""


def check_rows(rows: Rows) -> list[str]:
    """Return warnings about the splits, the classes and near-copies across splits."""
    warnings = []
    for name in SPLITS:
        count = len(getattr(rows, name))
        if count == 0:
            warnings.append(f"no rows for {name}: a run would stop here; add rows or groups, or change data.split")
        elif count < FEW_ROWS:
            warnings.append(f"{name} has {count} rows; with fewer than {FEW_ROWS} its scores say little")
    if rows.train and rows.target.kind != "number":
        counts = Counter(record.target for record in rows.train)
        few = [name for name in rows.target.classes if counts[name] < FEW_OF_A_CLASS]
        if few:
            named = ", ".join(f"{printable(name)!r:.40} ({counts[name]})" for name in few[:10])
            warnings.append(
                f"{len(few)} of {len(rows.target.classes)} classes have fewer than {FEW_OF_A_CLASS} "
                f"training rows: {named}{', ...' if len(few) > 10 else ''}; merge them, or add rows"
            )
    copies = near_copies(rows)
    if copies.pairs:
        first = copies.pairs[0]
        warnings.append(
            f"{copies}, such as {first.split} row {printable(first.row)} and {printable(first.train)}; "
            "copies inflate the scores: drop them, or put them into one group"
        )
    return warnings


def check_images(rows: Rows, config: DataConfig) -> tuple[list[str], list[str]]:
    """Return problems and warnings: whether each file exists, and whether a sample of MAX_DECODED can be decoded."""
    problems, warnings = [], []
    row_pictures = [
        (record.id, picture)
        for name in SPLITS
        for record in getattr(rows, name)
        if record.image is not None
        for picture in pictures(record.image)
    ]
    if expects_images(config) and not any(not isinstance(picture, str) for _, picture in row_pictures):
        warnings.append(
            "the configuration expects images, and no row has a photo: the image modality is "
            + ("descriptions that came with the data" if row_pictures else "missing in every row")
        )
    if config.kind == "airbnb" and config.images is None:
        warnings.append("data.images names no folder: no listing has a picture")
    existing = []
    for row, picture in row_pictures:
        if isinstance(picture, str | Image.Image):
            continue
        problem = _missing_file(picture)
        if problem:
            problems.append(f"row {printable(row)}: {problem}")
        else:
            existing.append((row, picture))
    for row, picture in existing[:: -(-len(existing) // MAX_DECODED) or 1]:
        try:
            pixels(picture)
        except Exception as error:  # Pillow's readers raise exceptions of many kinds on damaged files
            problems.append(
                f"row {printable(row)}: the image {printable(str(picture))} cannot be decoded "
                f"({printable(str(error)):.100}); replace it or take it out"
            )
    return problems, warnings


def expects_images(config: DataConfig) -> bool:
    """Return True if the configuration of the data names or implies pictures."""
    match config.kind:
        case "emoji":
            return True
        case "table":
            return config.image is not None
        case "petfinder":
            return config.photos != "none"
        case "airbnb":
            return config.images is not None
        case "avito":
            return config.images
    return False


def _missing_file(picture: Path | ZippedImage) -> str | None:
    """Return why the file of a picture cannot be read, or None."""
    if isinstance(picture, Path):
        return None if picture.is_file() else f"there is no image {picture}; mend the path or add the file"
    try:
        archive(picture.archive).getinfo(picture.member)
    except KeyError:
        return f"{picture.archive} holds no {picture.member!r}; take another archive, or clear the row's image"
    except Exception as error:  # zipfile raises its own, OSError and ValueError
        return f"{picture.archive} cannot be read ({error}); fetch it again"
    return None
