"""In-memory index of the sealed shards of a store: sorted keys, and the columns that a look-up returns.

A million rows take about 450 MB: prompts, most of a store's bytes, are not read, and a row becomes a Python object only
when it is looked up.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ...errors import UserError

_NAMES = pa.dictionary(pa.int32(), pa.string())
_COLUMNS = {
    "stage": _NAMES,
    "completion": pa.string(),
    "finish": _NAMES,
    "prompt_tokens": pa.int64(),
    "completion_tokens": pa.int64(),
    "seconds": pa.float64(),
    "model": _NAMES,
    "flags": _NAMES,
    "created": pa.float64(),
    "writer": _NAMES,
}
"""The columns of a shard in the index, in addition to the keys, and their types."""
_SCHEMA = pa.schema([("key", pa.string()), *_COLUMNS.items()])
_REPEATING = [name for name, kind in _COLUMNS.items() if kind == _NAMES]
_TEXT = "completion"
DAMAGE = (pa.ArrowException, LookupError, TypeError, ValueError, OSError)
"""The errors that pyarrow raises for a damaged file."""
_HEX = 64
"""Length of a key: sha256 in hex."""


class ShardIndex:
    """Look-ups in Parquet shards; of rows with equal keys, the one with the lowest (created, writer) is returned."""

    def __init__(self):
        self.paths: set[Path] = set()
        self._shards: list[_Shard] = []
        self._keys = np.empty((0, _HEX), np.uint8)  # ASCII digits of each key
        self._order = np.empty(0, np.int64)
        self._prefixes = np.empty(0, np.uint64)
        self._starts = np.zeros(1, np.int64)

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, paths: Sequence[Path]) -> None:
        """Index more shards. Raises FileNotFoundError if one was deleted, UserError if one is torn."""
        contents = [_read(path) for path in paths]
        self._keys = np.concatenate([self._keys, *(keys for keys, _ in contents)])
        self._shards += [shard for _, shard in contents]
        self._starts = np.cumsum([0, *(len(shard.numbers["created"]) for shard in self._shards)])
        self.paths |= set(paths)
        created = np.concatenate([np.empty(0), *(shard.numbers["created"] for shard in self._shards)])
        prefixes = _prefix(self._keys)
        self._order = np.lexsort((self._writers(), created, prefixes))
        self._prefixes = prefixes[self._order]

    def find(self, keys: Sequence[str]) -> list[tuple | None]:
        """Return for each key the values of _COLUMNS, or None if no shard has it."""
        rows = self._locate(keys)
        hits = np.flatnonzero(rows >= 0)
        values: list[tuple | None] = [None] * len(keys)
        shards = np.searchsorted(self._starts, rows[hits], side="right") - 1
        for shard in np.unique(shards):
            indices = hits[shards == shard]
            shard_rows = self._shards[shard].rows(rows[indices] - self._starts[shard])
            for index, row in zip(indices.tolist(), shard_rows, strict=True):
                values[index] = row
        return values

    def keys(self) -> set[str]:
        """Return all keys."""
        return {key.decode() for key in self._keys.view(f"S{_HEX}").ravel().tolist()}

    def frame(self) -> pd.DataFrame:
        """Return model, stage, tokens and seconds of all rows, in no particular order."""
        columns = ("model", "stage", "prompt_tokens", "completion_tokens", "seconds")
        return pd.concat(
            [pd.DataFrame(columns=columns)]
            + [pd.DataFrame({name: shard.column(name) for name in columns}) for shard in self._shards]
        )

    def _writers(self) -> np.ndarray:
        """Return the alphabetical rank of each row's writer."""
        writers = [shard.names["writer"] for shard in self._shards]
        rank = {name: index for index, name in enumerate(sorted(set().union(*(names for names, _ in writers))))}
        codes = [np.array([rank[name] for name in names], np.int64)[indices] for names, indices in writers]
        return np.concatenate([np.empty(0, np.int64), *codes])

    def _locate(self, keys: Sequence[str]) -> np.ndarray:
        """Return the row of each key, or -1."""
        rows = np.full(len(keys), -1, np.int64)
        if not len(self) or not keys:
            return rows
        digits = np.frombuffer("".join(keys).encode(), np.uint8).reshape(len(keys), _HEX)
        prefixes = _prefix(digits)
        positions = np.searchsorted(self._prefixes, prefixes)
        pending = np.arange(len(keys))
        # It repeats only if two keys share their first 64 bits.
        while len(pending):
            pending = pending[positions[pending] < len(self)]
            pending = pending[self._prefixes[positions[pending]] == prefixes[pending]]
            candidates = self._order[positions[pending]]
            equal = (self._keys[candidates] == digits[pending]).all(axis=1)
            rows[pending[equal]] = candidates[equal]
            pending = pending[~equal]
            positions[pending] += 1
        return rows


@dataclass(frozen=True)
class _Shard:
    """The columns of one shard: numbers, repeated names as (names, index of each row), and the texts."""

    numbers: dict[str, np.ndarray]
    names: dict[str, tuple[np.ndarray, np.ndarray]]
    texts: pa.LargeStringArray

    def column(self, name: str) -> np.ndarray:
        """Return one column of numbers or names."""
        if name in self.numbers:
            return self.numbers[name]
        names, indices = self.names[name]
        return names[indices]

    def rows(self, indices: np.ndarray) -> Iterator[tuple]:
        """Yield the values of _COLUMNS of these rows."""
        # NumPy converts numbers and names to Python objects five times as fast as Arrow.
        columns = [
            self.texts.take(pa.array(indices)).to_pylist() if name == _TEXT else self._values(name, indices)
            for name in _COLUMNS
        ]
        return zip(*columns, strict=True)

    def _values(self, name: str, indices: np.ndarray) -> list:
        if name in self.numbers:
            return self.numbers[name][indices].tolist()
        names, codes = self.names[name]
        return names[codes[indices]].tolist()


def open_shard(path: Path, schema: pa.Schema, read_dictionary: Sequence[str] = ()) -> pq.ParquetFile:
    """Open a shard to read it with page checksums. Raises ValueError if its footer has another schema."""
    file = pq.ParquetFile(path, read_dictionary=list(read_dictionary), page_checksum_verification=True)
    groups = [file.metadata.row_group(index).num_rows for index in range(file.metadata.num_row_groups)]
    types = {item.name: pa.string() if pa.types.is_large_string(item.type) else item.type for item in file.schema_arrow}
    # Page checksums do not cover the footer.
    if any(types.get(item.name) != item.type for item in schema):
        raise ValueError("its columns are not those of a store")
    if sum(groups) != file.metadata.num_rows:
        raise ValueError("the row counts of its footer differ")
    return file


def check_columns(columns: pa.Table | pa.RecordBatch) -> None:
    """Raise ValueError if a value is null: no column of a store has one."""
    if any(column.null_count for column in columns.columns):
        raise ValueError("it has null values")


def damaged(path: Path, error: Exception) -> UserError:
    """Return the error of a shard that cannot be read."""
    if isinstance(error, OSError) and error.strerror:  # of the operating system, such as a refused permission
        return UserError(f"{path} cannot be read: {error.strerror}; repair the folder, then run the same command again")
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return UserError(
        f"{path} is damaged or not a shard of a store ({reason}); `python -m project store verify {path.parent}` lists "
        "all damage; remove the file and run the same command again: its texts are generated again"
    )


def _read(path: Path) -> tuple[np.ndarray, _Shard]:
    try:
        file = open_shard(path, _SCHEMA, _REPEATING)
        table = file.read(columns=_SCHEMA.names)
        check_columns(table)
        # The cast raises on a key of another length.
        keys = b"".join(
            memoryview(chunk.buffers()[1])[chunk.offset * _HEX : (chunk.offset + len(chunk)) * _HEX]
            for chunk in table["key"].cast(pa.binary(_HEX)).chunks
        )
        names = {}
        for name in _REPEATING:
            column = pa.concat_arrays(table.unify_dictionaries()[name].chunks or [pa.array([], _NAMES)])
            column.validate(full=True)  # an index may be out of bounds
            names[name] = column.dictionary.to_numpy(zero_copy_only=False), column.indices.to_numpy()
        numbers = {name: table[name].to_numpy() for name in _COLUMNS if name not in (*_REPEATING, _TEXT)}
        texts = pa.concat_arrays(table[_TEXT].cast(pa.large_string()).chunks or [pa.array([], pa.large_string())])
        return np.frombuffer(keys, np.uint8).reshape(-1, _HEX), _Shard(numbers, names, texts)
    except FileNotFoundError:
        raise
    except DAMAGE as error:
        raise damaged(path, error) from error


def _prefix(keys: np.ndarray) -> np.ndarray:
    """Return the first 64 bits of each key from its ASCII digits: uint8 (keys, 64) to uint64 (keys,)."""
    prefix = np.zeros(len(keys), np.uint64)
    for column in range(16):
        digit = keys[:, column]
        prefix = prefix << np.uint64(4) | np.where(digit > 57, digit - 87, digit - 48).astype(np.uint64)
    return prefix
