"""Every generation ever paid for, by content: a folder of Parquet shards, and a journal for each living writer.

A writer appends one checksummed line per generation to a journal of its own and flushes it, so that a killed job loses
at most the line it was writing. On close the journal becomes a Parquet shard: written aside, renamed, and only then
the journal is deleted. Nothing is locked, so many jobs may share one folder on a shared file system.
"""

import json
import os
import secrets
import socket
import time
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from .engine import Completion, Request

SEAL_AT = 50_000
"""Rows of a journal that are sealed into one shard."""


@dataclass(frozen=True)
class Row:
    """One generation as it is stored; `seconds` is the engine's time, `created` is seconds since 1970."""

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


SCHEMA = pa.schema([
    (name, {str: pa.string(), int: pa.int64(), float: pa.float64()}[kind]) for name, kind in Row.__annotations__.items()
])


def _line(row: Row) -> bytes:
    body = json.dumps(asdict(row), ensure_ascii=False).encode()
    return b"%08x %s\n" % (zlib.crc32(body), body)


def _parse(line: bytes) -> Row | None:
    """The row of a journal's line, or None where the line is torn or altered."""
    checksum, _, body = line.rstrip(b"\n").partition(b" ")
    if not line.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(body):
        return None
    return Row(**json.loads(body))


class Store:
    """Look-ups over one folder that is written and any number that are only read.

    Of two rows with one key the earliest (created, writer) wins, in every process. A folder that is only read may be
    absent; the written one is made with the first row.
    """

    def __init__(self, path: Path | str, recorded: tuple[Path | str, ...] = ()):
        self.path = Path(path)
        self.folders = [self.path, *map(Path, recorded)]
        self.writer = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._rows: dict[str, Row] = {}
        self._shards: set[Path] = set()
        self._read: dict[Path, int] = {}
        self._journal = None
        self._written: list[Row] = []
        self.refresh()

    def refresh(self) -> None:
        """Take in what other writers have added since the last look."""
        for folder in self.folders:
            # Journals first: one that is sealed between the two listings is then found among the shards.
            for path in sorted(folder.glob("*.journal")):
                try:
                    with path.open("rb") as file:
                        file.seek(self._read.get(path, 0))
                        for line in file:
                            row = _parse(line)
                            if row is None and not line.endswith(b"\n"):
                                break
                            self._read[path] = self._read.get(path, 0) + len(line)
                            if row is not None:
                                self._add(row)
                except FileNotFoundError:
                    continue
            for path in sorted(folder.glob("*.parquet")):
                if path not in self._shards:
                    for row in pq.read_table(path, schema=SCHEMA).to_pylist():
                        self._add(Row(**row))
                    self._shards.add(path)

    def _add(self, row: Row) -> None:
        known = self._rows.get(row.key)
        if known is None or (row.created, row.writer) < (known.created, known.writer):
            self._rows[row.key] = row

    def get(self, key: str) -> Row | None:
        """The generation under a key, or None."""
        return self._rows.get(key)

    def __len__(self) -> int:
        return len(self._rows)

    def rows(self) -> list[Row]:
        """All generations, in no particular order."""
        return list(self._rows.values())

    def put(self, request: Request, model: str, completion: Completion, flags: tuple[str, ...] = ()) -> Row:
        """Keep one generation; it is on its way to the disk when this returns."""
        prompt = json.dumps({"messages": request.messages, "temperature": request.temperature,
                             "max_tokens": request.max_tokens, "schema": request.schema, "round": request.round,
                             "attempt": request.attempt}, ensure_ascii=False)
        row = Row(
            key=request.key(model), stage=request.stage, prompt=prompt, completion=completion.text,
            finish=completion.finish, prompt_tokens=completion.prompt_tokens,
            completion_tokens=completion.completion_tokens, seconds=completion.seconds, model=model,
            flags=",".join(flags), created=time.time(), writer=self.writer,
        )
        if self._journal is None:
            self.path.mkdir(parents=True, exist_ok=True)
            self._journal = (self.path / f"{self.writer}-{secrets.token_hex(4)}.journal").open("ab")
        self._journal.write(_line(row))
        self._journal.flush()
        self._written.append(row)
        self._add(row)
        if len(self._written) >= SEAL_AT:
            self.close()
        return self._rows[row.key]

    def close(self) -> None:
        """Seal this writer's journal into a shard; the store stays usable."""
        if self._journal is None:
            return
        journal = Path(self._journal.name)
        self._journal.close()
        seal(journal)
        self._journal, self._written = None, []

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_) -> None:
        self.close()


def seal(journal: Path) -> Path:
    """Turn a journal into a Parquet shard beside it, then delete the journal; torn lines are left out."""
    with journal.open("rb") as file:
        rows = [asdict(row) for row in map(_parse, file) if row is not None]
    shard = journal.with_suffix(".parquet")
    aside = journal.with_suffix(".sealing")
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), aside, compression="zstd")
    os.replace(aside, shard)
    journal.unlink()
    return shard
