"""Files and folders that are written whole or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from ..errors import UserError


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A path beside it to write to, which takes its place at the end; where the writing fails, nothing is left."""
    part = path.with_name(f"{path.name}.part")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_parquet(table: pd.DataFrame, path: Path) -> None:
    """Write a table."""
    with atomic_path(path) as part:
        table.to_parquet(part, index=False)


def write_text(path: Path, text: str) -> None:
    """Write a text."""
    with atomic_path(path) as part:
        part.write_text(text, encoding="utf-8")


@contextmanager
def atomic_directory(output: Path) -> Iterator[Path]:
    """A folder beside it to write to, which takes its place at the end.

    Raises UserError where there is a folder with something in it, or where it cannot be written.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"output={output} is there and not empty; give another folder")
    part = output.with_name(f"{output.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        yield part
        os.replace(part, output)
    except OSError as error:
        raise UserError(f"cannot write {output}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
