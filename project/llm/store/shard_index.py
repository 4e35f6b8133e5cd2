"""The sealed shards of a store as one index: sorted keys, and the columns that a look-up returns.

A million rows take some 450 MB: prompts, most of a store's bytes, are never read, and no row is a Python object before
it is asked for.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ...errors import UserError

COLUMNS = (
    "stage",
    "completion",
    "finish",
    "prompt_tokens",
    "completion_tokens",
    "seconds",
    "model",
    "flags",
    "created",
    "writer",
)
"""What is kept of a shard beside the keys."""
_REPEATING = ["stage", "finish", "model", "flags", "writer"]
_TEXT = "completion"
_NAMES = pa.dictionary(pa.int32(), pa.string())
_HEX = 64
"""Length of a key: sha256 in hex."""


class ShardIndex:
    """Look-ups in any number of Parquet shards; of rows with one key the earliest (created, writer) is found."""

    def __init__(self):
        self.paths: set[Path] = set()
        self._shards: list[_Shard] = []
        self._keys = np.empty((0, _HEX), np.uint8)  # each as its ASCII digits
        self._order = np.empty(0, np.int64)
        self._prefixes = np.empty(0, np.uint64)
        self._starts = np.zeros(1, np.int64)

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, paths: Sequence[Path]) -> None:
        """Take in more shards. Raises FileNotFoundError where one is gone, UserError where one is no whole shard."""
        read = [_read(path) for path in paths]
        self._keys = np.concatenate([self._keys, *(keys for keys, _ in read)])
        self._shards += [shard for _, shard in read]
        self._starts = np.cumsum([0, *(len(shard.numbers["created"]) for shard in self._shards)])
        self.paths |= set(paths)
        created = np.concatenate([np.empty(0), *(shard.numbers["created"] for shard in self._shards)])
        prefixes = _prefix(self._keys)
        self._order = np.lexsort((self._writers(), created, prefixes))
        self._prefixes = prefixes[self._order]

    def find(self, keys: Sequence[str]) -> list[tuple | None]:
        """For each key the values of COLUMNS, or None where no shard has it."""
        rows = self._locate(keys)
        found = np.flatnonzero(rows >= 0)
        values: list[tuple | None] = [None] * len(keys)
        shards = np.searchsorted(self._starts, rows[found], side="right") - 1
        for shard in np.unique(shards):
            wanted = found[shards == shard]
            for index, row in zip(
                wanted.tolist(), self._shards[shard].rows(rows[wanted] - self._starts[shard]), strict=True
            ):
                values[index] = row
        return values

    def keys(self) -> set[str]:
        """All keys."""
        return {key.decode() for key in self._keys.view(f"S{_HEX}").ravel().tolist()}

    def frame(self) -> pd.DataFrame:
        """Model, stage, tokens and seconds of all rows, in no particular order."""
        columns = ("model", "stage", "prompt_tokens", "completion_tokens", "seconds")
        return pd.concat(
            [pd.DataFrame(columns=columns)]
            + [pd.DataFrame({name: shard.column(name) for name in columns}) for shard in self._shards]
        )

    def _writers(self) -> np.ndarray:
        """The place of each row's writer among all writers in alphabetical order."""
        known = [shard.names["writer"] for shard in self._shards]
        rank = {name: place for place, name in enumerate(sorted(set().union(*(names for names, _ in known))))}
        codes = [np.array([rank[name] for name in names], np.int64)[indices] for names, indices in known]
        return np.concatenate([np.empty(0, np.int64), *codes])

    def _locate(self, keys: Sequence[str]) -> np.ndarray:
        """The row of each key, or -1."""
        rows = np.full(len(keys), -1, np.int64)
        if not len(self) or not keys:
            return rows
        wanted = np.frombuffer("".join(keys).encode(), np.uint8).reshape(len(keys), _HEX)
        prefixes = _prefix(wanted)
        places = np.searchsorted(self._prefixes, prefixes)
        pending = np.arange(len(keys))
        # More than one step only where two keys share their first 64 bits.
        while len(pending):
            pending = pending[places[pending] < len(self)]
            pending = pending[self._prefixes[places[pending]] == prefixes[pending]]
            candidates = self._order[places[pending]]
            same = (self._keys[candidates] == wanted[pending]).all(axis=1)
            rows[pending[same]] = candidates[same]
            pending = pending[~same]
            places[pending] += 1
        return rows


@dataclass(frozen=True)
class _Shard:
    """The columns of one shard: numbers, repeated names as (names, index of each row), and the texts."""

    numbers: dict[str, np.ndarray]
    names: dict[str, tuple[np.ndarray, np.ndarray]]
    texts: pa.LargeStringArray

    def column(self, name: str) -> np.ndarray:
        """One column of numbers or names."""
        if name in self.numbers:
            return self.numbers[name]
        names, indices = self.names[name]
        return names[indices]

    def rows(self, places: np.ndarray) -> Iterator[tuple]:
        """The values of COLUMNS at these places."""
        # Through NumPy, which is five times as fast as Arrow at making Python objects of numbers and names.
        columns = [
            self.texts.take(pa.array(places)).to_pylist() if name == _TEXT else self._at(name, places)
            for name in COLUMNS
        ]
        return zip(*columns, strict=True)

    def _at(self, name: str, places: np.ndarray) -> list:
        if name in self.numbers:
            return self.numbers[name][places].tolist()
        names, indices = self.names[name]
        return names[indices[places]].tolist()


def _read(path: Path) -> tuple[np.ndarray, _Shard]:
    try:
        table = pq.read_table(path, columns=["key", *COLUMNS], read_dictionary=_REPEATING, partitioning=None)
        # The cast fails on a key of another length.
        keys = b"".join(
            memoryview(chunk.buffers()[1])[chunk.offset * _HEX : (chunk.offset + len(chunk)) * _HEX]
            for chunk in table["key"].cast(pa.binary(_HEX)).chunks
        )
        names = {}
        for name in _REPEATING:
            column = pa.concat_arrays(table.unify_dictionaries()[name].chunks or [pa.array([], _NAMES)])
            names[name] = column.dictionary.to_numpy(zero_copy_only=False), column.indices.to_numpy()
        numbers = {name: table[name].to_numpy() for name in COLUMNS if name not in (*_REPEATING, _TEXT)}
        texts = pa.concat_arrays(table[_TEXT].cast(pa.large_string()).chunks or [pa.array([], pa.large_string())])
        return np.frombuffer(keys, np.uint8).reshape(-1, _HEX), _Shard(numbers, names, texts)
    except (pa.ArrowInvalid, KeyError, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise UserError(
            f"{path} is torn or is no shard of a store ({str(error).splitlines()[0]}); move it away, then "
            "run the same command: what it held is generated again"
        ) from error


def _prefix(keys: np.ndarray) -> np.ndarray:
    """The first 64 bits of each key, whose 64 hexadecimal digits stand in a row of bytes."""
    prefix = np.zeros(len(keys), np.uint64)
    for column in range(16):
        digit = keys[:, column]
        prefix = prefix << np.uint64(4) | np.where(digit > 57, digit - 87, digit - 48).astype(np.uint64)
    return prefix
