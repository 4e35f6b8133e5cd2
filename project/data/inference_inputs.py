"""New rows for a trained run: which columns they have, and each row as the Record that training would have made of it.

A row is read by itself: its text never depends on the rows beside it, and a problem of one is no problem of the others.
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
from .sources.table import checked_image
from .tabular_io import MISSING_IN_TABLE, MISSING_MARKS, SEPARATORS, cell, cells, nearest, raise_all, read_frame


@dataclass(frozen=True)
class InputColumns:
    """The columns that a run reads. `table` has the wording of each, `missing` are words that mean no text, no image.

    The target is none of them: where new rows have it, it is not looked at.
    """

    image: str | None
    text: tuple[str, ...]
    table: dict[str, Wording]
    missing: frozenset[str] = frozenset()

    @property
    def names(self) -> list[str]:
        """All of them, each once."""
        return list(dict.fromkeys([*([self.image] if self.image else []), *self.text, *self.table]))


def input_columns(config: DataConfig, rows: Rows) -> InputColumns:
    """The columns of the run's table, worded as its own file is read.

    For another source they are `image`, `text`, and the names in its records' tables, whose cells are taken as they
    are written. Raises UserError where the run's table cannot be read.
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
    written = {column for column in (config.image, config.id, config.group, config.target, *config.text) if column}
    frame = read_frame(path, written, config.table)
    in_csv = path.name.lower().endswith(tuple(SEPARATORS))
    blank = MISSING_IN_TABLE if in_csv else ()
    return InputColumns(
        config.image,
        tuple(config.text),
        {column: wording_of(cells(frame, column), blank) for column in config.table},
        frozenset(MISSING_MARKS if in_csv else ()),
    )


def check_columns(names: Sequence[str], columns: InputColumns, where: str) -> None:
    """Raises UserError, a line each, where a column that the run reads is not among the names, or any stands twice."""
    problems = [
        f"{where}: the column {name!r:.60} stands twice; rename one of them"
        for name in dict.fromkeys(names)
        if list(names).count(name) > 1
    ]
    problems += [
        f"{where}: no column {column!r}, which the run reads; "
        f"{nearest(column, names, 'add it, with empty cells where there is nothing; ')}"
        for column in columns.names
        if column not in names
    ]
    raise_all(problems)


def record_of(row: Mapping[str, Any], columns: InputColumns, number: int, folder: Path) -> Record:
    """One row as a Record whose id is its number; a column that the row lacks is a missing cell.

    An image is a path that stays in `folder`, or a Pillow image. Raises UserError with what is wrong with the row.
    """
    found = {name: _cell(row, name, columns) for name in columns.names}
    image = found[columns.image] if columns.image else None
    if image is not None and not isinstance(image, Image.Image):
        try:
            image = checked_image(folder, str(image))
        except UserError as error:
            raise UserError(f"column {columns.image!r}: {error}") from error
    text = "\n".join(str(found[name]) for name in columns.text if found[name] is not None) or None
    table = {name: wording.word(found[name]) for name, wording in columns.table.items()}
    if all(words is None for words in table.values()):
        table = None
    return checked(Record(str(number), str(number), image, text, table), columns.names)


def checked(record: Record, names: Sequence[str] = ()) -> Record:
    """The record with its pictures in memory, so that what is read is what is there now.

    Raises UserError where one cannot be read, or where there is nothing to read at all, with the names to fill.
    """
    if not record.present:
        mend = f"; fill one of {', '.join(names)}" if names else ""
        raise UserError(f"there is nothing to read in any modality{mend}")
    if record.image is None:
        return record
    read = tuple(map(_in_memory, pictures(record.image)))
    return replace(record, image=read if isinstance(record.image, tuple) else read[0])


def _in_memory(picture: Picture) -> Picture:
    if isinstance(picture, str):
        return picture
    try:
        return Image.fromarray(pixels(picture))
    except Exception as error:  # Pillow's readers raise exceptions of many kinds on damaged files
        raise UserError(f"the image {str(picture)!r:.100} cannot be read; it is missing or damaged") from error


def _cell(row: Mapping[str, Any], name: str, columns: InputColumns) -> Any:
    """A cell, None where nothing is there. Raises UserError where it holds no single value."""
    value = row.get(name)
    if name == columns.image and isinstance(value, Image.Image | Path):
        return value
    try:
        found = cell(value)
    except ValueError as error:
        raise UserError(f"column {name!r} holds a list, an object or bytes; write one text, number or path") from error
    blank = isinstance(found, str) and name not in columns.table and found in columns.missing
    return None if blank else found
