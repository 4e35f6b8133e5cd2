"""PetFinder's adoption speed: photos, a description and coded columns, which are turned into words.

The folder is the competition's, as it is published: train/train.csv (or train.csv), train_images/, train_metadata/,
and the three label files, beside the folders or in one of them.
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
CODES = {
    "Type": {"1": "dog", "2": "cat"},
    "Gender": {"1": "male", "2": "female", "3": "mixed group"},
    "MaturitySize": {"1": "small", "2": "medium", "3": "large", "4": "extra large"},
    "FurLength": {"1": "short", "2": "medium", "3": "long"},
    "Vaccinated": _YES,
    "Dewormed": _YES,
    "Sterilized": _YES,
    "Health": {"1": "healthy", "2": "minor injury", "3": "serious injury"},
}
"""The codes of the competition's data page; 0 is not specified."""
NAMES = {
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
"""The columns of the table, in order, and what they are called in words."""
LABELS = {
    "Breed": ("breed_labels.csv", "BreedID", "BreedName"),
    "Color": ("color_labels.csv", "ColorID", "ColorName"),
    "State": ("state_labels.csv", "StateID", "StateName"),
}
OTHERS = ("RescuerID", "Description", "Name", "PetID", "AdoptionSpeed")


def read_petfinder(config: PetfinderConfig) -> Iterator[Record]:
    """The labelled rows; the target is the speed, "0" to "4".

    Missing and unspecified cells are None. Where photos are wanted and absent, what the metadata of the first photo
    say is its ready description. Raises UserError for a missing file or column, for a copy whose target has another
    meaning, and one UserError for the problems of all rows.
    """
    folder = Path(config.path).expanduser()
    path = _found(folder, "train.csv")
    frame = read_frame(path)
    missing = [column for column in (*NAMES, *OTHERS) if column not in frame.columns]
    speeds = set(frame["AdoptionSpeed"].dropna()) if "AdoptionSpeed" in frame.columns else set()
    if speeds and speeds <= {"0", "1"}:
        raise UserError(
            f"{path}: AdoptionSpeed is only 0 or 1: this is AutoGluon's tutorial copy, whose target was "
            f"made binary and cannot be compared with any other result; take the original: {COMMAND}"
        )
    raise_all([f"{path}: no column {column!r}; take the file as it is published: {COMMAND}" for column in missing])
    labels = {name: _labels(folder, *where) for name, where in LABELS.items()}
    photos = _photos(folder, config.photos)
    columns = {column: cells(frame, column) for column in (*NAMES, *OTHERS)}
    copied = cells(frame, "Images") if "Images" in frame.columns else [None] * len(frame)
    problems, records, seen = [], [], {}
    for index in range(len(frame)):
        row = {column: values[index] for column, values in columns.items()}
        where, name, speed = f"{path}: row {index + 1}", row["PetID"], row["AdoptionSpeed"]
        if name is None or seen.setdefault(name, index + 1) != index + 1:
            problems.append(f"{where}, column 'PetID': {'missing' if name is None else f'{name!r} stands there twice'}")
            continue
        if row["RescuerID"] is None:
            problems.append(f"{where}, column 'RescuerID': missing; rows are split by it")
        if _whole(speed) not in ("0", "1", "2", "3", "4"):
            problems.append(f"{where}, column 'AdoptionSpeed': {speed!r:.40} is none of 0 to 4")
        table = {words: _in_words(column, row[column], labels, problems, where) for column, words in NAMES.items()}
        text = "\n".join(part for part in (row["Name"], row["Description"]) if part) or None
        images = photos.get(name) or _copied(path.parent, copied[index], config.photos)
        if not images and config.photos != "none" and config.metadata:
            images = _described(folder, name)
        records.append(Record(name, row["RescuerID"] or "", _one_or_all(images), text, table, _whole(speed)))
    raise_all(problems)
    yield from records


def _found(folder: Path, name: str) -> Path:
    """A file in the folder, in train/, or in any folder below it. Raises UserError where there is none."""
    places = [folder / name, folder / "train" / name, *sorted(folder.glob(f"*/{name}"))]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise UserError(f"{folder}: no {name}; data.path is the folder of {TITLE} ({SOURCE}), under {TERMS}: {COMMAND}")
    return found


def _labels(folder: Path, file: str, key: str, value: str) -> dict[str, str]:
    """Names by code."""
    path = _found(folder, file)
    frame = read_frame(path)
    raise_all(
        [
            f"{path}: no column {column!r}; take the file as it is published"
            for column in (key, value)
            if column not in frame.columns
        ]
    )
    return dict(zip(map(str, cells(frame, key)), cells(frame, value), strict=True))


def _photos(folder: Path, wanted: str) -> dict[str, tuple[Picture, ...]]:
    """The photos of each pet, by number; the folder is listed once, and no photo is opened."""
    found: dict[str, list[tuple[int, Path]]] = {}
    for path in (folder / "train_images").glob("*.jpg") if wanted != "none" else ():
        if match := re.fullmatch(r"(.+)-(\d+)", path.stem):
            found.setdefault(match[1], []).append((int(match[2]), path))
    return {
        name: tuple(path for _, path in sorted(photos)[: 1 if wanted == "first" else None])
        for name, photos in found.items()
    }


def _copied(folder: Path, images: str | None, wanted: str) -> tuple[Picture, ...]:
    """The photos that AutoGluon's copy names in a column: paths in its folder, with semicolons between them."""
    paths = [(folder / part).resolve() for part in (images or "").split(";") if part and wanted != "none"]
    inside = [path for path in paths if path.is_relative_to(folder.resolve()) and path.is_file()]
    return tuple(inside[: 1 if wanted == "first" else None])


def _described(folder: Path, name: str) -> tuple[Picture, ...]:
    """What the published metadata of the first photo say, as a ready description; nothing where there are none."""
    path = (folder / "train_metadata" / f"{name}-1.json").resolve()
    if not path.is_relative_to(folder.resolve()) or not path.is_file():
        return ()
    try:
        labels = json.loads(path.read_text(encoding="utf-8")).get("labelAnnotations", [])
        words = [label["description"] for label in labels if label["score"] >= 0.5]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: not the metadata of a photo ({error!r:.80}); take it out, or set data.metadata=false"
        ) from error
    return (f"It shows {', '.join(words)}.",) if words else ()


def _one_or_all(images: tuple[Picture, ...]) -> Picture | tuple[Picture, ...] | None:
    return images if len(images) > 1 else next(iter(images), None)


def _whole(value: str | None) -> str | None:
    """3.0 as 3, as programs write it that once saw an empty cell in the column."""
    return value if value is None else re.sub(r"\.0+$", "", str(value))


def _in_words(column: str, value: str | None, labels: dict, problems: list[str], where: str) -> str | None:
    """A cell as a reader would write it; None where it is missing or not specified."""
    value = _whole(value)
    if value is None:
        return None
    if column in CODES:
        if value != "0" and value not in CODES[column]:
            known = ", ".join(["0", *CODES[column]])
            problems.append(f"{where}, column {column!r}: {value!r:.40} is no code of it, which are {known}")
        return CODES[column].get(value)
    kind = column.rstrip("123")
    if kind in labels:
        return labels[kind].get(value)  # 0 is none, and a few published breeds and states have no name
    if not value.isdecimal():
        problems.append(f"{where}, column {column!r}: {value!r:.40} is no whole number")
        return None
    if column == "Age":
        return _age(int(value))
    return ("free" if value == "0" else f"{value} ringgit") if column == "Fee" else value


def _age(months: int) -> str:
    """An age in words."""
    years, rest = divmod(months, 12)
    told = [f"{count} {unit}{'s' * (count > 1)}" for count, unit in ((years, "year"), (rest, "month")) if count]
    return " and ".join(told) or "under a month"
