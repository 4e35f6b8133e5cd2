"""Any CSV, TSV, JSONL or Parquet as Records: a few lines of configuration say which column is what.

All rows are checked before the first is used, so that every problem is seen at once and before anything is spent.
"""

from pathlib import Path

from PIL import Image

from ...config.schema import TableConfig
from ...errors import UserError
from ..column_inference import as_targets, as_written, in_words, infer_columns, task_of
from ..record import Record
from ..tabular_io import cells, nearest, raise_all, read_frame

UNFIT = {
    "number": "no finite number; write one in digits, drop the row, or set data.task=class",
    "ordinal": "no whole number; number the classes in order, drop the row, or set data.task=class",
}
"""What a cell of the target is that does not fit the task."""


def read_table(config: TableConfig) -> list[Record]:
    """The rows of `config.path` as Records, in the order of the file.

    Where no image, text and table columns are named, their roles are inferred. An empty cell is a missing value, not a
    mistake: it is None in the record's table, and a record without text, image or any cell has None there. Rows are
    numbered from 1, the header not counted. Raises UserError for a file that cannot be read, and one UserError that
    lists all problems of the columns and rows, with the mend of each.
    """
    path = Path(config.path).expanduser()
    config = infer_columns(config)
    named = _columns(config)
    frame = read_frame(path, {column for key, column in named if key != "table"}, config.table)
    problems = _column_problems(config, path, list(frame.columns))
    values = {}
    for column in dict.fromkeys(column for _, column in named if column in frame.columns):
        try:
            values[column] = cells(frame, column)
        except ValueError as error:
            problems.append(
                f"{path}: column {column!r} holds lists, objects or bytes, first in row {error}; write one "
                "text, number or path in a cell"
            )

    blank = [None] * len(frame)
    ids = as_written(values[config.id]) if config.id in values else [str(row) for row in range(1, len(frame) + 1)]
    groups = as_written(values[config.group]) if config.group in values else ids
    images = as_written(values.get(config.image, blank))
    texts = [as_written(values[column]) for column in config.text if column in values]
    table = {column: in_words(values[column]) for column in config.table if column in values}
    answers = values.get(config.target, blank)
    task = task_of(answers, config.task)
    targets = as_targets(answers, task)
    different = {target for target in targets if target is not None}
    if len(different) == 1:
        problems.append(
            f"{path}: column {config.target!r}: the target is always {min(different)!r:.60}; "
            "name another column under data.target, or add rows with another target"
        )
    if config.log and task != "number" and config.target in values:
        problems.append(
            f"{path}: column {config.target!r}: data.log=true wants a number, and the target is a class; "
            "set data.task=number or data.log=false"
        )
    inputs = [column for key, column in named if key in ("image", "text", "table")]
    all_read = bool(inputs) and all(column in values for column in inputs)

    folder = path.parent.resolve()
    records, first_row = [], {}
    for index in range(len(frame)):
        where = f"{path}: row {index + 1}"
        name, group, target = ids[index], groups[index], targets[index]
        if name is None:
            problems.append(f"{where}, column {config.id!r}: no id; write one, or leave data.id out to number the rows")
        elif first_row.setdefault(name, index + 1) != index + 1:
            problems.append(
                f"{where}, column {config.id!r}: {name!r:.60} is already the id of row {first_row[name]}; "
                "make it unique, or leave data.id out to number the rows"
            )
        if group is None and config.group in values:
            problems.append(f"{where}, column {config.group!r}: no group; write one, such as a name of its own")
        if config.target in values and (wrong := _wrong_target(answers[index], target, task, config.log)):
            problems.append(f"{where}, column {config.target!r}: {wrong}")
        text = "\n".join(column[index] for column in texts if column[index] is not None) or None
        row = {column: words[index] for column, words in table.items()}
        if all(word is None for word in row.values()):
            row = None
        image = None
        if images[index] is not None:
            try:
                image = checked_image(folder, images[index])
            except UserError as error:
                problems.append(f"{where}, column {config.image!r}: {error}")
        elif all_read and text is None and row is None:
            problems.append(f"{where}: nothing in any input column; fill one of {', '.join(inputs)}, or drop the row")
        records.append(Record(name or "", group or "", image, text, row, target))
    raise_all(problems)
    return records


def _wrong_target(answer: object, target: str | float | None, task: str, log: bool) -> str | None:
    """What is wrong with a cell of the target, or None."""
    if answer is None:
        return f"no target; write the {'number' if task == 'number' else 'class'}, or drop the row"
    if target is None:
        return f"{str(answer)!r:.60} is {UNFIT[task]}"
    if log and task == "number" and target <= 0:
        return f"{target:g} has no logarithm, as data.log=true wants it; drop the row, or set data.log=false"
    return None


def _columns(config: TableConfig) -> list[tuple[str, str]]:
    """The columns that the configuration names, each with the key under `data` that names it."""
    single = [(key, getattr(config, key)) for key in ("target", "id", "group", "image")]
    several = [(key, column) for key in ("text", "table") for column in getattr(config, key)]
    return [(key, column) for key, column in single if column is not None] + several


def _column_problems(config: TableConfig, path: Path, columns: list[str]) -> list[str]:
    """What is wrong with the columns that the configuration names."""
    problems = []
    named = _columns(config)
    for key, column in named:
        if column not in columns:
            problems.append(f"{path}: no column {column!r}, which data.{key} names; {nearest(column, columns)}")
    inputs = [(key, column) for key, column in named if key in ("image", "text", "table")]
    if not inputs:
        problems.append(f"{path}: nothing to predict from; name a column under data.image, data.text or data.table")
    for key, column in inputs:
        if column == config.target:
            problems.append(f"{path}: column {column!r} is the target and an input; take it out of data.{key}")
    return problems


def checked_image(folder: Path, cell: str) -> Path:
    """The resolved path of an image in the folder. Raises UserError if it is elsewhere, missing or not decodable."""
    shown = f"{cell!r:.100}"
    if Path(cell).is_absolute():
        raise UserError(f"the image path {shown} is absolute; write it relative to {folder}")
    try:
        path = (folder / cell).resolve()
        found = path.is_file()
    except (OSError, ValueError, RuntimeError) as error:  # too long, a NUL byte, a circle of links
        raise UserError(f"the image path {shown} is not a usable path; mend it or empty the cell") from error
    if not path.is_relative_to(folder):
        raise UserError(f"the image path {shown} leads out of {folder}; move the image there, not a link to it")
    if not found:
        raise UserError(f"no image {shown} in {folder}; mend the path or empty the cell")
    try:
        with Image.open(path) as image:
            image.verify()
        with Image.open(path) as image:  # verify leaves an image that cannot be decoded
            image.convert("RGB")
    except Exception as error:  # Pillow's readers raise exceptions of many kinds on damaged files
        raise UserError(f"the image {shown} is damaged or no image; replace it or empty the cell") from error
    return path
