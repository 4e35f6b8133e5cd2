"""Turn new rows for a trained run into the Records that training would have read from them.

Each row is read independently: neither its text nor its problems depend on the other rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from ..config.schema import DataConfig, TableConfig
from ..errors import UserError
from .column_inference import Wording, wording_of
from .images import Picture, pictures, pixels
from .record import Record
from .rows import Rows
from .sources.table import resolve_image
from .tabular_io import MISSING_IN_TABLE, MISSING_MARKS, SEPARATORS, cell, cells, raise_all, read_frame, suggest_column


@dataclass(frozen=True)
class InputColumns:
    """The columns that a run reads, without the target.

    `table` has the wording of each table column. `missing` has the words that stand for a missing text or image.
    """

    image: str | None
    text: tuple[str, ...]
    table: dict[str, Wording]
    missing: frozenset[str] = frozenset()

    @property
    def names(self) -> list[str]:
        """Return all column names without repeats."""
        return list(dict.fromkeys([*([self.image] if self.image else []), *self.text, *self.table]))


def input_columns(config: DataConfig, rows: Rows) -> InputColumns:
    """Return the columns of the run's table, with the wording of its file.

    For other sources, the columns are `image`, `text`, and the names in the records' tables, whose cells are used as
    written. Raises UserError if the run's table cannot be read.
    """
    if not isinstance(config, TableConfig):
        names = dict.fromkeys(name for record in rows.train for name in record.table or {})
        return InputColumns(
            "image" if "image" in rows.modalities else None,
            ("text",) if "text" in rows.modalities else (),
            {name: Wording(missing=frozenset(MISSING_IN_TABLE)) for name in names},
            frozenset(MISSING_MARKS),
        )
    path = Path(config.path).expanduser()
    as_written = {column for column in (config.image, config.id, config.group, config.target, *config.text) if column}
    frame = read_frame(path, as_written, config.table)
    is_csv = path.name.lower().endswith(tuple(SEPARATORS))
    missing_in_table = MISSING_IN_TABLE if is_csv else ()
    return InputColumns(
        config.image,
        tuple(config.text),
        {column: wording_of(cells(frame, column), missing_in_table) for column in config.table},
        frozenset(MISSING_MARKS if is_csv else ()),
    )


def check_columns(names: Sequence[str], columns: InputColumns, where: str) -> None:
    """Check the column names of new rows. Raises UserError, one line per problem, for missing and repeated columns."""
    problems = [
        f"{where}: the column {name!r:.60} appears twice; rename one of them"
        for name in dict.fromkeys(names)
        if list(names).count(name) > 1
    ]
    problems += [
        f"{where}: no column {column!r}, which the run reads; "
        f"{suggest_column(column, names, 'add it, with empty cells for missing values; ')}"
        for column in columns.names
        if column not in names
    ]
    raise_all(problems)


def record_of(row: Mapping[str, Any], columns: InputColumns, number: int, folder: Path) -> Record:
    """Return one row as a Record with its number as id; a missing column is a missing cell.

    An image is a path within `folder`, or a Pillow image. Raises UserError if a cell is not a single value, if the
    image cannot be read, or if all modalities are empty.
    """
    values = {name: _cell(row, name, columns) for name in columns.names}
    image = values[columns.image] if columns.image else None
    if image is not None and not isinstance(image, Image.Image):
        try:
            image = resolve_image(folder, str(image))
        except UserError as error:
            raise UserError(f"column {columns.image!r}: {error}") from error
    text = "\n".join(str(values[name]) for name in columns.text if values[name] is not None) or None
    table = {name: wording.word(values[name]) for name, wording in columns.table.items()}
    if all(words is None for words in table.values()):
        table = None
    return load_pictures(Record(str(number), str(number), image, text, table), columns.names)


def load_pictures(record: Record, names: Sequence[str] = ()) -> Record:
    """Return the record with its pictures in memory, so that later changes of files have no effect.

    `names` are the columns that messages advise to fill. Raises UserError if a picture cannot be read, or if all
    modalities are empty.
    """
    if not record.present:
        mend = f"; fill one of {', '.join(names)}" if names else ""
        raise UserError(f"there is nothing to read in any modality{mend}")
    if record.image is None:
        return record
    loaded = tuple(map(_load_picture, pictures(record.image)))
    return replace(record, image=loaded if isinstance(record.image, tuple) else loaded[0])


def _load_picture(picture: Picture) -> Picture:
    if isinstance(picture, str):
        return picture
    try:
        return Image.fromarray(pixels(picture))
    except Exception as error:  # Pillow's readers raise exceptions of many kinds on damaged files
        raise UserError(f"the image {str(picture)!r:.100} cannot be read; it is missing or damaged") from error


def _cell(row: Mapping[str, Any], name: str, columns: InputColumns) -> Any:
    """Return a cell, None if it is missing. Raises UserError if it is not a single value."""
    value = row.get(name)
    if name == columns.image and isinstance(value, Image.Image | Path):
        return value
    try:
        content = cell(value)
    except ValueError as error:
        raise UserError(f"column {name!r} holds a list, an object or bytes; write one text, number or path") from error
    is_missing = isinstance(content, str) and name not in columns.table and content in columns.missing
    return None if is_missing else content
