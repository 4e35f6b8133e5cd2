"""Content-addressed store of all generations: a folder of Parquet shards, and a journal for each running writer.

A writer appends one checksummed line per generation to its own journal, unbuffered, so that a killed job loses at most
the line being written. On close the journal becomes a Parquet shard: written to a temporary file and renamed before the
journal is deleted. There are no locks, so many jobs can share one folder on a shared file system. maintenance.py has
the operations between runs.
"""

import contextlib
import json
import os
import secrets
import socket
import time
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ...errors import UserError
from ..protocol import Completion, Request
from .shard_index import ShardIndex

SEAL_AT = 50_000
"""Rows at which a journal is sealed into a shard."""


@dataclass(frozen=True)
class Row:
    """One stored generation; `seconds` is its share of the engine's time, `created` is seconds since 1970.

    A look-up returns an empty `prompt`: prompts are most of a store's bytes, and no run reads them.
    """

    key: str
    stage: str
    prompt: str
    completion: str
    finish: str
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    model: str
    flags: str
    created: float
    writer: str


SCHEMA = pa.schema(
    [
        (name, {str: pa.string(), int: pa.int64(), float: pa.float64()}[kind])
        for name, kind in Row.__annotations__.items()
    ]
)


def encode_row(row: Row) -> bytes:
    """Return the line of a row in a journal: the CRC-32 of the JSON, and the JSON."""
    body = json.dumps(asdict(row), ensure_ascii=False).encode()
    return b"%08x %s\n" % (zlib.crc32(body), body)


def decode_row(line: bytes) -> Row | None:
    """Return the row of a line in a journal, or None if the line is torn or altered."""
    checksum, _, body = line.rstrip(b"\n").partition(b" ")
    if not line.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(body):
        return None
    return Row(**json.loads(body))


class Store:
    """Read and write one folder; read any number of `recorded` folders.

    Of rows with equal keys, every process returns the one with the lowest (created, writer). A recorded folder may be
    absent; the first row creates the written one. Not thread-safe.
    """

    def __init__(self, path: Path | str, recorded: tuple[Path | str, ...] = ()):
        self.path = Path(path)
        self.folders = [self.path, *map(Path, recorded)]
        self.writer = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._sealed = ShardIndex()
        # The rows of journals by key, each with its journal.
        self._live: dict[str, tuple[Row, Path]] = {}
        self._offsets: dict[Path, int] = {}
        self._journal = None
        self._lines: list[bytes] = []
        self.refresh()

    def refresh(self) -> int:
        """Read the rows that were added since the last refresh; return their number.

        Raises UserError if a shard is torn.
        """
        added = 0
        for folder in self.folders:
            # Journals first: the shard list then includes a journal that is sealed in between.
            for path in sorted(folder.glob("*.journal")):
                with contextlib.suppress(FileNotFoundError):
                    added += self._tail(path)
        while True:
            shards = [path for folder in self.folders for path in sorted(folder.glob("*.parquet"))]
            with contextlib.suppress(FileNotFoundError):  # compacted since it was listed: list again
                return added + self._add_shards([path for path in shards if path not in self._sealed.paths])

    def _tail(self, path: Path) -> int:
        added = 0
        with path.open("rb") as file:
            file.seek(self._offsets.get(path, 0))
            for line in file:
                row = decode_row(line)
                if row is None and not line.endswith(b"\n"):
                    break  # still being written, or torn when its writer was killed
                self._offsets[path] = self._offsets.get(path, 0) + len(line)
                if row is not None:
                    added += 1
                    self._add(replace(row, prompt=""), path)
        return added

    def _add_shards(self, shards: Sequence[Path]) -> int:
        if not shards:
            return 0
        before = len(self._sealed)
        self._sealed.add(shards)
        sealed = {path.with_suffix(".journal") for path in shards}
        self._live = {key: (row, journal) for key, (row, journal) in self._live.items() if journal not in sealed}
        return len(self._sealed) - before

    def _add(self, row: Row, journal: Path) -> None:
        current = self._live.get(row.key)
        if current is None or (row.created, row.writer) < (current[0].created, current[0].writer):
            self._live[row.key] = row, journal

    def find(self, keys: Sequence[str]) -> list[Row | None]:
        """Return the generation of each key, or None."""
        rows = []
        for key, values in zip(keys, self._sealed.find(keys), strict=True):
            row = values and Row(key, values[0], "", *values[1:])
            live, _ = self._live.get(key, (None, None))
            rows.append(live if live and (not row or (live.created, live.writer) < (row.created, row.writer)) else row)
        return rows

    def get(self, key: str) -> Row | None:
        """Return the generation of one key, or None."""
        return self.find([key])[0]

    def keys(self) -> set[str]:
        """Return the keys of all generations."""
        return self._sealed.keys() | set(self._live)

    def mean_costs(self, model: str) -> dict[str, tuple[float, float, float]]:
        """Return by stage the mean prompt tokens, completion tokens and seconds of that model's generations."""
        rows = pd.concat([pd.DataFrame([vars(row) for row, _ in self._live.values()]), self._sealed.frame()])
        if rows.empty:
            return {}
        costs = ["prompt_tokens", "completion_tokens", "seconds"]
        means = rows[rows["model"] == model].astype({name: float for name in costs}).groupby("stage")[costs].mean()
        return {stage: tuple(values) for stage, values in zip(means.index, means.to_numpy().tolist(), strict=True)}

    def put(self, request: Request, model: str, completion: Completion, flags: tuple[str, ...] = ()) -> Row:
        """Store one generation and pass it to the operating system; return the row that a look-up of its key returns.

        Raises UserError if it cannot be written; earlier generations are not lost.
        """
        row = Row(
            key=request.key(model),
            stage=request.stage,
            prompt=json.dumps(request.settings, ensure_ascii=False),
            completion=completion.text,
            finish=completion.finish,
            prompt_tokens=completion.prompt_tokens,
            completion_tokens=completion.completion_tokens,
            seconds=completion.seconds,
            model=model,
            flags=",".join(flags),
            created=time.time(),
            writer=self.writer,
        )
        line = encode_row(row)
        try:
            self._open()
            _append(self._journal, line)
        except OSError as error:
            raise UserError(
                f"cannot write to the store {self.path}: {error.strerror}; stored texts are safe. Free disk space or "
                "repair the folder, then run the same command to resume"
            ) from error
        self._lines.append(line)
        self._add(replace(row, prompt=""), Path(self._journal.name))
        stored = self.get(row.key)
        if len(self._lines) >= SEAL_AT:
            self.close()
        return stored

    def _open(self) -> None:
        """Open a journal, or a new one if another process sealed and deleted the current one."""
        deleted = self._journal is not None and os.fstat(self._journal.fileno()).st_nlink == 0
        if self._journal is not None and not deleted:
            return
        self.path.mkdir(parents=True, exist_ok=True)
        # Unbuffered: a failed write must not stay in a buffer and be written again with the next one.
        journal = (self.path / f"{self.writer}-{secrets.token_hex(4)}.journal").open("ab", buffering=0)
        if deleted:
            # The process that sealed it may have missed the last lines; duplicate rows count once.
            _append(journal, b"".join(self._lines))
            self._journal.close()
        self._journal = journal

    def close(self) -> None:
        """Seal this writer's journal into a shard; the store stays usable.

        Raises UserError if the shard cannot be written; the journal then keeps every row.
        """
        if self._journal is None:
            return
        try:
            self._open()
            journal = Path(self._journal.name)
            self._add_shards([seal_journal(journal)[0]])
        except OSError as error:
            raise UserError(
                f"cannot seal {self._journal.name}: {error.strerror}; it keeps every text. Free disk space, then run: "
                f"python -m project store seal {self.path}"
            ) from error
        self._journal.close()
        self._journal, self._lines = None, []

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, kind, *_) -> None:
        try:
            self.close()
        except UserError:
            if kind is None:  # else the original error matters more
                raise


def _append(file, data: bytes) -> None:
    """Write all data or, on OSError, nothing."""
    size = os.fstat(file.fileno()).st_size
    try:
        remaining = memoryview(data)
        while remaining:
            remaining = remaining[file.write(remaining) :]
    except OSError:
        os.ftruncate(file.fileno(), size)
        raise


def seal_journal(journal: Path) -> tuple[Path, int]:
    """Convert a journal to a Parquet shard in the same folder, then delete the journal.

    Returns the shard and the number of torn or altered lines, which are dropped.
    """
    with journal.open("rb") as file:
        rows = [decode_row(line) for line in file]
    shard = journal.with_suffix(".parquet")
    write_shard([row for row in rows if row is not None], shard)
    journal.unlink(missing_ok=True)
    return shard, rows.count(None)


def write_shard(rows: Iterable[Row], shard: Path) -> None:
    """Write rows to one Parquet file with page checksums, atomically."""
    temporary = shard.with_name(f"{shard.name}.{secrets.token_hex(4)}.part")
    try:
        table = pa.Table.from_pylist([asdict(row) for row in rows], schema=SCHEMA)
        pq.write_table(table, temporary, compression="zstd", write_page_checksum=True)
        os.replace(temporary, shard)
    finally:
        temporary.unlink(missing_ok=True)
