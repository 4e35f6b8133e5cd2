"""Read any CSV, TSV, JSONL or Parquet file as Records; the configuration gives the roles of the columns.

All rows are checked before the first one is used, so that all problems are reported together.
"""

from pathlib import Path

from PIL import Image

from ...config.schema import TableConfig
from ...errors import UserError
from ..column_inference import as_strings, as_targets, in_words, infer_columns, infer_task
from ..record import Record
from ..tabular_io import cells, raise_all, read_frame, suggest_column

_UNFIT_TARGETS = {
    "number": "no finite number; write one in digits, drop the row, or set data.task=class",
    "ordinal": "no whole number; number the classes in order, drop the row, or set data.task=class",
}
"""How messages describe a target that does not fit the task."""


def read_table(config: TableConfig) -> list[Record]:
    """Read the rows of `config.path` as Records, in the order of the file.

    If the configuration names no image, text and table columns, their roles are inferred. An empty cell is a missing
    value and no mistake. Messages number rows from 1, without the header. Raises UserError if the file cannot be read,
    and one UserError that lists all problems of columns and rows, and how to mend them.
    """
    path = Path(config.path).expanduser()
    config = infer_columns(config)
    named_columns = _named_columns(config)
    frame = read_frame(path, {column for key, column in named_columns if key != "table"}, config.table)
    problems = _column_problems(config, path, list(frame.columns))
    values = {}
    for column in dict.fromkeys(column for _, column in named_columns if column in frame.columns):
        try:
            values[column] = cells(frame, column)
        except ValueError as error:
            problems.append(
                f"{path}: column {column!r} holds lists, objects or bytes, first in row {error}; write one "
                "text, number or path per cell"
            )

    no_values = [None] * len(frame)
    ids = as_strings(values[config.id]) if config.id in values else [str(row) for row in range(1, len(frame) + 1)]
    groups = as_strings(values[config.group]) if config.group in values else ids
    images = as_strings(values.get(config.image, no_values))
    texts = [as_strings(values[column]) for column in config.text if column in values]
    table = {column: in_words(values[column]) for column in config.table if column in values}
    target_cells = values.get(config.target, no_values)
    task = infer_task(target_cells, config.task)
    targets = as_targets(target_cells, task)
    distinct = {target for target in targets if target is not None}
    if len(distinct) == 1:
        problems.append(
            f"{path}: column {config.target!r}: the target is always {min(distinct)!r:.60}; "
            "name another column under data.target, or add rows with another target"
        )
    if config.log and task != "number" and config.target in values:
        problems.append(
            f"{path}: column {config.target!r}: data.log=true needs a number, and the target is a class; "
            "set data.task=number or data.log=false"
        )
    inputs = [column for key, column in named_columns if key in ("image", "text", "table")]
    all_inputs_read = bool(inputs) and all(column in values for column in inputs)

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
            problems.append(f"{where}, column {config.group!r}: no group; write one, such as a unique name")
        if config.target in values and (problem := _target_problem(target_cells[index], target, task, config.log)):
            problems.append(f"{where}, column {config.target!r}: {problem}")
        text = "\n".join(column[index] for column in texts if column[index] is not None) or None
        row = {column: words[index] for column, words in table.items()}
        if all(word is None for word in row.values()):
            row = None
        image = None
        if images[index] is not None:
            try:
                image = resolve_image(folder, images[index])
            except UserError as error:
                problems.append(f"{where}, column {config.image!r}: {error}")
        elif all_inputs_read and text is None and row is None:
            problems.append(f"{where}: all input columns are empty; fill one of {', '.join(inputs)}, or drop the row")
        records.append(Record(name or "", group or "", image, text, row, target))
    raise_all(problems)
    return records


def _target_problem(cell: object, target: str | float | None, task: str, log: bool) -> str | None:
    """Return the problem of a target cell, or None."""
    if cell is None:
        return f"no target; write the {'number' if task == 'number' else 'class'}, or drop the row"
    if target is None:
        return f"{str(cell)!r:.60} is {_UNFIT_TARGETS[task]}"
    if log and task == "number" and target <= 0:
        return f"{target:g} has no logarithm, which data.log=true needs; drop the row, or set data.log=false"
    return None


def _named_columns(config: TableConfig) -> list[tuple[str, str]]:
    """Return the columns that the configuration names, as pairs of key under `data` and column."""
    single = [(key, getattr(config, key)) for key in ("target", "id", "group", "image")]
    several = [(key, column) for key in ("text", "table") for column in getattr(config, key)]
    return [(key, column) for key, column in single if column is not None] + several


def _column_problems(config: TableConfig, path: Path, columns: list[str]) -> list[str]:
    """Return the problems of the columns that the configuration names."""
    problems = []
    named_columns = _named_columns(config)
    for key, column in named_columns:
        if column not in columns:
            problems.append(f"{path}: no column {column!r}, which data.{key} names; {suggest_column(column, columns)}")
    inputs = [(key, column) for key, column in named_columns if key in ("image", "text", "table")]
    if not inputs:
        problems.append(f"{path}: no input columns; name a column under data.image, data.text or data.table")
    for key, column in inputs:
        if column == config.target:
            problems.append(f"{path}: column {column!r} is the target and an input; remove it from data.{key}")
    return problems


def resolve_image(folder: Path, cell: str) -> Path:
    """Return the resolved path of an image in the folder, after decoding it once.

    Raises UserError if the path leads out of the folder, or if the image is missing or cannot be decoded.
    """
    quoted = f"{cell!r:.100}"
    if Path(cell).is_absolute():
        raise UserError(f"the image path {quoted} is absolute; write it relative to {folder}")
    try:
        path = (folder / cell).resolve()
        is_file = path.is_file()
    except (OSError, ValueError, RuntimeError) as error:  # too long, a NUL byte, a loop of links
        raise UserError(f"the image path {quoted} is not a usable path; mend it or empty the cell") from error
    if not path.is_relative_to(folder):
        raise UserError(f"the image path {quoted} leads out of {folder}; move the image there, not a link to it")
    if not is_file:
        raise UserError(f"no image {quoted} in {folder}; mend the path or empty the cell")
    try:
        with Image.open(path) as image:
            image.verify()
        with Image.open(path) as image:  # again, because verify leaves the image unusable
            image.convert("RGB")
    except Exception as error:  # Pillow's readers raise exceptions of many kinds on damaged files
        raise UserError(f"the image {quoted} is damaged or no image; replace it or empty the cell") from error
    return path
