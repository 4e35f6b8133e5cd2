"""Keys of the sources and of the split."""

from dataclasses import dataclass, field
from typing import Literal

from ..registry import bounded, part


@dataclass
class SplitConfig:
    val: float = bounded(0.15, minimum=0, maximum=1)
    """Share of the groups for validation: early stopping, choice of the checkpoint, tuning."""
    test: float = bounded(0.25, minimum=0, maximum=1)
    """Share of the groups for the final evaluation."""
    seed: int = bounded(0, minimum=0)
    """Random seed of the split, separate from the training seed, so that all seeds of a study share their rows."""
    fold: int = bounded(0, minimum=0)
    """Index of the share of groups that is the test: with test=0.2, folds 0 to 4 test each group once."""
    max_train: int | None = bounded(None, minimum=1)
    """Maximum number of training rows, in the order of a hash of the record id; null keeps all."""
    max_val: int | None = bounded(None, minimum=1)
    """Maximum number of validation rows; null keeps all."""
    max_test: int | None = bounded(None, minimum=1)
    """Maximum number of test rows; null keeps all."""


@dataclass
class DataConfig:
    kind: str = "???"
    """The source that reads the rows."""
    name: str = "???"
    """The name of the data in results and reports."""
    question: str = "???"
    """What the model predicts, as a question; part of the reasoning prompt."""
    lines: str = ""
    """What the description of each modality contains, in sentences; part of the reasoning prompt."""
    advice: str = "Say which of its properties bear on the answer, and choose the answer that fits."
    """How to reason, in sentences; part of the reasoning prompt."""
    limit: int | None = bounded(None, minimum=1)
    """Approximate number of rows over all splits, in the proportion of the splits; null keeps all."""
    split: SplitConfig = field(default_factory=SplitConfig)


@part("data", "project.data.sources.emoji:read_emoji")
@dataclass
class EmojiConfig(DataConfig):
    kind: str = "emoji"
    image_size: int = bounded(96, minimum=1)
    """Side of the rendered drawing, in pixels."""
    keywords: int = 6
    """Maximum number of keywords that follow the name in the text."""


@part("data", "project.data.sources.table:read_table")
@dataclass
class TableConfig(DataConfig):
    kind: str = "table"
    path: str = "???"
    """A CSV, TSV, JSONL or Parquet file."""
    image: str | None = None
    """Column of image paths, relative to the folder of the file; null reads no images."""
    text: list[str] = field(default_factory=list)
    """Columns of free text, joined in this order."""
    table: list[str] = field(default_factory=list)
    """Columns that are serialised as a table."""
    target: str = "???"
    """Column of the target."""
    task: Literal["auto", "class", "ordinal", "number"] = "auto"
    """Kind of the target: classes, classes whose names are whole numbers in order, or a number; auto infers it."""
    log: bool = False
    """Learn the natural logarithm of a number, such as a price."""
    id: str | None = None
    """Column of the row ids; null takes the row number."""
    group: str | None = None
    """Column of the groups; rows of one group stay in one split. null makes each row a group."""


@part("data", "project.data.sources.petfinder:read_petfinder")
@dataclass
class PetfinderConfig(DataConfig):
    kind: str = "petfinder"
    path: str = "???"
    """The folder of the competition's files, as published."""
    task: Literal["class", "ordinal"] = "ordinal"
    """Read the five speeds as classes, or as classes in order, which are also scored by kappa."""
    photos: Literal["first", "all", "none"] = "first"
    """Which photos of a pet are read."""
    metadata: bool = True
    """Use the published image metadata as the description of missing photos."""


@part("data", "project.data.sources.airbnb:read_airbnb")
@dataclass
class AirbnbConfig(DataConfig):
    kind: str = "airbnb"
    path: str = "???"
    """A folder of listings.csv or listings.csv.gz files, one per city and date, or one such file."""
    images: str | None = None
    """A folder of pictures named <listing id>.jpg, .png or .webp; null reads no pictures."""
    test_city: str | None = None
    """A city, by the name of its folder: its listings are the test rows, all others train and val; null splits all."""
    log: bool = True
    """Learn the natural logarithm of the price."""


@part("data", "project.data.sources.avito:read_avito")
@dataclass
class AvitoConfig(DataConfig):
    kind: str = "avito"
    path: str = "???"
    """The folder of the competition's files: train.csv or train.csv.zip, and train_jpg.zip for the pictures."""
    images: bool = True
    """Read the pictures from train_jpg.zip, if it exists."""
