"""Read PetFinder's adoption speed: photos, a description, and coded columns, which are decoded to words.

The folder is the published one of the competition: train/train.csv (or train.csv), train_images/, train_metadata/, and
the three label files, next to these folders or in one of them.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

from ...config.schema import PetfinderConfig
from ...errors import UserError
from ..images import Picture
from ..record import Record
from ..tabular_io import cells, raise_all, read_frame

TITLE = "PetFinder.my adoption prediction"
SOURCE = "https://www.kaggle.com/c/petfinder-adoption-prediction"
TERMS = "the competition's rules, which must be accepted on its page; no redistribution"
COMMAND = "kaggle competitions download -c petfinder-adoption-prediction -p FOLDER && unzip FOLDER/*.zip -d FOLDER"

_YES = {"1": "yes", "2": "no", "3": "not sure"}
_CODES = {
    "Type": {"1": "dog", "2": "cat"},
    "Gender": {"1": "male", "2": "female", "3": "mixed group"},
    "MaturitySize": {"1": "small", "2": "medium", "3": "large", "4": "extra large"},
    "FurLength": {"1": "short", "2": "medium", "3": "long"},
    "Vaccinated": _YES,
    "Dewormed": _YES,
    "Sterilized": _YES,
    "Health": {"1": "healthy", "2": "minor injury", "3": "serious injury"},
}
"""The codes of the competition's data page; 0 means not specified."""
_COLUMN_WORDS = {
    "Type": "type",
    "Age": "age",
    "Breed1": "breed",
    "Breed2": "second breed",
    "Gender": "gender",
    "Color1": "colour",
    "Color2": "second colour",
    "Color3": "third colour",
    "MaturitySize": "size at maturity",
    "FurLength": "fur length",
    "Vaccinated": "vaccinated",
    "Dewormed": "dewormed",
    "Sterilized": "sterilized",
    "Health": "health",
    "Quantity": "number of pets",
    "Fee": "adoption fee",
    "State": "state",
    "VideoAmt": "number of videos",
    "PhotoAmt": "number of photos",
}
"""The columns of the table, in order, and their names in words."""
_LABEL_FILES = {
    "Breed": ("breed_labels.csv", "BreedID", "BreedName"),
    "Color": ("color_labels.csv", "ColorID", "ColorName"),
    "State": ("state_labels.csv", "StateID", "StateName"),
}
_OTHER_COLUMNS = ("RescuerID", "Description", "Name", "PetID", "AdoptionSpeed")


def read_petfinder(config: PetfinderConfig) -> Iterator[Record]:
    """Yield the labelled rows; the target is the adoption speed, "0" to "4".

    Missing and unspecified cells are None. If a pet has no photo, a ready description from the metadata of its first
    photo replaces it. Raises UserError for a missing file or column, for a copy whose target has another meaning, and
    one UserError for the problems of all rows.
    """
    folder = Path(config.path).expanduser()
    path = _find_file(folder, "train.csv")
    frame = read_frame(path)
    missing = [column for column in (*_COLUMN_WORDS, *_OTHER_COLUMNS) if column not in frame.columns]
    speeds = set(frame["AdoptionSpeed"].dropna()) if "AdoptionSpeed" in frame.columns else set()
    if speeds and speeds <= {"0", "1"}:
        raise UserError(
            f"{path}: AdoptionSpeed is only 0 or 1: this is AutoGluon's tutorial copy, whose binary target "
            f"cannot be compared with any other result; download the original: {COMMAND}"
        )
    raise_all([f"{path}: no column {column!r}; use the published file: {COMMAND}" for column in missing])
    labels = {name: _read_labels(folder, *source) for name, source in _LABEL_FILES.items()}
    photos = _photos(folder, config.photos)
    columns = {column: cells(frame, column) for column in (*_COLUMN_WORDS, *_OTHER_COLUMNS)}
    image_cells = cells(frame, "Images") if "Images" in frame.columns else [None] * len(frame)
    problems, records, first_rows = [], [], {}
    for index in range(len(frame)):
        row = {column: values[index] for column, values in columns.items()}
        where, name, speed = f"{path}: row {index + 1}", row["PetID"], row["AdoptionSpeed"]
        if name is None or first_rows.setdefault(name, index + 1) != index + 1:
            problems.append(f"{where}, column 'PetID': {'missing' if name is None else f'{name!r} appears twice'}")
            continue
        if row["RescuerID"] is None:
            problems.append(f"{where}, column 'RescuerID': missing; rows are split by it")
        if _whole(speed) not in ("0", "1", "2", "3", "4"):
            problems.append(f"{where}, column 'AdoptionSpeed': {speed!r:.40} is not one of 0 to 4")
        table = {
            words: _in_words(column, row[column], labels, problems, where) for column, words in _COLUMN_WORDS.items()
        }
        text = "\n".join(part for part in (row["Name"], row["Description"]) if part) or None
        images = photos.get(name) or _photos_of_cell(path.parent, image_cells[index], config.photos)
        if not images and config.photos != "none" and config.metadata:
            images = _metadata_description(folder, name)
        records.append(Record(name, row["RescuerID"] or "", _one_or_all(images), text, table, _whole(speed)))
    raise_all(problems)
    yield from records


def _find_file(folder: Path, name: str) -> Path:
    """Return a file in the folder, in train/, or in another folder below. Raises UserError if it is missing."""
    candidates = [folder / name, folder / "train" / name, *sorted(folder.glob(f"*/{name}"))]
    path = next((candidate for candidate in candidates if candidate.is_file()), None)
    if path is None:
        raise UserError(f"{folder}: no {name}; data.path is the folder of {TITLE} ({SOURCE}), under {TERMS}: {COMMAND}")
    return path


def _read_labels(folder: Path, file: str, key: str, value: str) -> dict[str, str]:
    """Return names by code."""
    path = _find_file(folder, file)
    frame = read_frame(path)
    raise_all(
        [
            f"{path}: no column {column!r}; use the published file"
            for column in (key, value)
            if column not in frame.columns
        ]
    )
    return dict(zip(map(str, cells(frame, key)), cells(frame, value), strict=True))


def _photos(folder: Path, selection: str) -> dict[str, tuple[Picture, ...]]:
    """Return the photos of each pet, sorted by number; the folder is listed once, and no photo is opened."""
    numbered: dict[str, list[tuple[int, Path]]] = {}
    for path in (folder / "train_images").glob("*.jpg") if selection != "none" else ():
        if match := re.fullmatch(r"(.+)-(\d+)", path.stem):
            numbered.setdefault(match[1], []).append((int(match[2]), path))
    return {
        name: tuple(path for _, path in sorted(photos)[: 1 if selection == "first" else None])
        for name, photos in numbered.items()
    }


def _photos_of_cell(folder: Path, cell: str | None, selection: str) -> tuple[Picture, ...]:
    """Return the photos in a cell of AutoGluon's copy: paths within its folder, separated by semicolons."""
    paths = [(folder / part).resolve() for part in (cell or "").split(";") if part and selection != "none"]
    inside = [path for path in paths if path.is_relative_to(folder.resolve()) and path.is_file()]
    return tuple(inside[: 1 if selection == "first" else None])


def _metadata_description(folder: Path, name: str) -> tuple[Picture, ...]:
    """Return the published metadata of the first photo as a ready description; an empty tuple without metadata.

    Raises UserError if the file is damaged.
    """
    path = (folder / "train_metadata" / f"{name}-1.json").resolve()
    if not path.is_relative_to(folder.resolve()) or not path.is_file():
        return ()
    try:
        labels = json.loads(path.read_text(encoding="utf-8")).get("labelAnnotations", [])
        words = [label["description"] for label in labels if label["score"] >= 0.5]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: not the metadata of a photo ({error!r:.80}); remove it, or set data.metadata=false"
        ) from error
    return (f"It shows {', '.join(words)}.",) if words else ()


def _one_or_all(images: tuple[Picture, ...]) -> Picture | tuple[Picture, ...] | None:
    return images if len(images) > 1 else next(iter(images), None)


def _whole(value: str | None) -> str | None:
    """Return 3.0 as 3: programs write whole numbers as 3.0 if their column has an empty cell."""
    return value if value is None else re.sub(r"\.0+$", "", str(value))


def _in_words(column: str, value: str | None, labels: dict, problems: list[str], where: str) -> str | None:
    """Return a cell as a person would write it; None if it is missing or not specified."""
    value = _whole(value)
    if value is None:
        return None
    if column in _CODES:
        if value != "0" and value not in _CODES[column]:
            codes = ", ".join(["0", *_CODES[column]])
            problems.append(f"{where}, column {column!r}: {value!r:.40} is not one of the codes {codes}")
        return _CODES[column].get(value)
    kind = column.rstrip("123")
    if kind in labels:
        return labels[kind].get(value)  # 0 means none, and a few published breeds and states have no name
    if not value.isdecimal():
        problems.append(f"{where}, column {column!r}: {value!r:.40} is no whole number")
        return None
    if column == "Age":
        return _age(int(value))
    return ("free" if value == "0" else f"{value} ringgit") if column == "Fee" else value


def _age(months: int) -> str:
    """Return an age in words."""
    years, rest = divmod(months, 12)
    parts = [f"{count} {unit}{'s' * (count > 1)}" for count, unit in ((years, "year"), (rest, "month")) if count]
    return " and ".join(parts) or "under a month"
