"""Every generation ever paid for, by content: a folder of Parquet shards, and a journal for each living writer.

A writer appends one checksummed line per generation to a journal of its own and flushes it, so that a killed job loses
at most the line it was writing. On close the journal becomes a Parquet shard: written aside, renamed, and only then
the journal is deleted. Nothing is locked, so many jobs may share one folder on a shared file system. upkeep.py has what
is done to a store between runs.
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
"""Rows of a journal that are sealed into one shard."""


@dataclass(frozen=True)
class Row:
    """One generation as it is stored; `seconds` is its share of the engine's time, `created` is seconds since 1970.

    A look-up leaves `prompt` empty: prompts are most of a store's bytes, and no run reads them.
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


def line_of(row: Row) -> bytes:
    """A row as a journal keeps it: the checksum of the rest, and JSON."""
    body = json.dumps(asdict(row), ensure_ascii=False).encode()
    return b"%08x %s\n" % (zlib.crc32(body), body)


def row_of(line: bytes) -> Row | None:
    """The row of a journal's line, or None where the line is torn or altered."""
    checksum, _, body = line.rstrip(b"\n").partition(b" ")
    if not line.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(body):
        return None
    return Row(**json.loads(body))


class Store:
    """Look-ups over one folder that is written and any number that are only read.

    Of two rows with one key the earliest (created, writer) wins, in every process. A folder that is only read may be
    absent; the written one is made with the first row. One thread at a time may use a store.
    """

    def __init__(self, path: Path | str, recorded: tuple[Path | str, ...] = ()):
        self.path = Path(path)
        self.folders = [self.path, *map(Path, recorded)]
        self.writer = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._sealed = ShardIndex()
        # What stands in journals, each row with the journal that it was read from.
        self._live: dict[str, tuple[Row, Path]] = {}
        self._offsets: dict[Path, int] = {}
        self._journal = None
        self._lines: list[bytes] = []
        self.refresh()

    def refresh(self) -> int:
        """Take in what was added since the last look; returns how many rows that were.

        Raises UserError where a shard is torn.
        """
        added = 0
        for folder in self.folders:
            # Journals first: one that is sealed between the two listings is then found among the shards.
            for path in sorted(folder.glob("*.journal")):
                with contextlib.suppress(FileNotFoundError):
                    added += self._tail(path)
        while True:
            shards = [path for folder in self.folders for path in sorted(folder.glob("*.parquet"))]
            with contextlib.suppress(FileNotFoundError):  # compacted away since it was listed: list again
                return added + self._take_in([path for path in shards if path not in self._sealed.paths])

    def _tail(self, path: Path) -> int:
        added = 0
        with path.open("rb") as file:
            file.seek(self._offsets.get(path, 0))
            for line in file:
                row = row_of(line)
                if row is None and not line.endswith(b"\n"):
                    break  # still being written, or torn by the end of its writer
                self._offsets[path] = self._offsets.get(path, 0) + len(line)
                if row is not None:
                    added += 1
                    self._add(replace(row, prompt=""), path)
        return added

    def _take_in(self, shards: Sequence[Path]) -> int:
        if not shards:
            return 0
        before = len(self._sealed)
        self._sealed.add(shards)
        sealed = {path.with_suffix(".journal") for path in shards}
        self._live = {key: (row, journal) for key, (row, journal) in self._live.items() if journal not in sealed}
        return len(self._sealed) - before

    def _add(self, row: Row, journal: Path) -> None:
        known = self._live.get(row.key)
        if known is None or (row.created, row.writer) < (known[0].created, known[0].writer):
            self._live[row.key] = row, journal

    def find(self, keys: Sequence[str]) -> list[Row | None]:
        """The generation under each key, or None."""
        rows = []
        for key, values in zip(keys, self._sealed.find(keys), strict=True):
            row = values and Row(key, values[0], "", *values[1:])
            live, _ = self._live.get(key, (None, None))
            rows.append(live if live and (not row or (live.created, live.writer) < (row.created, row.writer)) else row)
        return rows

    def get(self, key: str) -> Row | None:
        """The generation under one key, or None."""
        return self.find([key])[0]

    def keys(self) -> set[str]:
        """The keys of all generations."""
        return self._sealed.keys() | set(self._live)

    def pace(self, model: str) -> dict[str, tuple[float, float, float]]:
        """What that model's generations cost on average, by stage: prompt tokens, completion tokens, seconds."""
        known = pd.concat([pd.DataFrame([vars(row) for row, _ in self._live.values()]), self._sealed.frame()])
        if known.empty:
            return {}
        costs = ["prompt_tokens", "completion_tokens", "seconds"]
        means = known[known["model"] == model].astype({name: float for name in costs}).groupby("stage")[costs].mean()
        return {stage: tuple(values) for stage, values in zip(means.index, means.to_numpy().tolist(), strict=True)}

    def put(self, request: Request, model: str, completion: Completion, flags: tuple[str, ...] = ()) -> Row:
        """Keep one generation; it is on its way to the disk when this returns.

        Returns the row that a look-up finds. Raises UserError where it cannot be written, with all before it kept.
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
        line = line_of(row)
        try:
            self._open()
            _append(self._journal, line)
        except OSError as error:
            raise UserError(
                f"cannot write to the store {self.path}: {error.strerror}; what was there is kept. Make "
                "room, or mend the folder, and give the same command: it goes on from here"
            ) from error
        self._lines.append(line)
        self._add(replace(row, prompt=""), Path(self._journal.name))
        found = self.get(row.key)
        if len(self._lines) >= SEAL_AT:
            self.close()
        return found

    def _open(self) -> None:
        """See to it that there is a journal that others can see."""
        adopted = self._journal is not None and os.fstat(self._journal.fileno()).st_nlink == 0
        if self._journal is not None and not adopted:
            return
        self.path.mkdir(parents=True, exist_ok=True)
        # Unbuffered: what a failed write leaves in a buffer would be written again with the next.
        journal = (self.path / f"{self.writer}-{secrets.token_hex(4)}.journal").open("ab", buffering=0)
        if adopted:
            # Whoever sealed it may have missed the last lines; rows that are twice there are one row.
            _append(journal, b"".join(self._lines))
            self._journal.close()
        self._journal = journal

    def close(self) -> None:
        """Seal this writer's journal into a shard; the store stays usable.

        Raises UserError where the shard cannot be written; the journal then keeps everything.
        """
        if self._journal is None:
            return
        try:
            self._open()
            journal = Path(self._journal.name)
            self._take_in([seal_journal(journal)[0]])
        except OSError as error:
            raise UserError(
                f"cannot seal {self._journal.name}: {error.strerror}; it keeps every text. Make room, then "
                f"run: python -m project store seal {self.path}"
            ) from error
        self._journal.close()
        self._journal, self._lines = None, []

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, kind, *_) -> None:
        try:
            self.close()
        except UserError:
            if kind is None:  # else the error on its way out says more
                raise


def _append(file, data: bytes) -> None:
    """Write all of it or, on OSError, nothing."""
    size = os.fstat(file.fileno()).st_size
    try:
        left = memoryview(data)
        while left:
            left = left[file.write(left) :]
    except OSError:
        os.ftruncate(file.fileno(), size)
        raise


def seal_journal(journal: Path) -> tuple[Path, int]:
    """Turn a journal into a Parquet shard beside it, then delete the journal.

    Returns the shard and how many torn or altered lines were left out.
    """
    with journal.open("rb") as file:
        rows = [row_of(line) for line in file]
    shard = journal.with_suffix(".parquet")
    write_shard([row for row in rows if row is not None], shard)
    journal.unlink(missing_ok=True)
    return shard, rows.count(None)


def write_shard(rows: Iterable[Row], shard: Path) -> None:
    """Write rows as one Parquet file with checksums, whole or not at all."""
    aside = shard.with_name(f"{shard.name}.{secrets.token_hex(4)}.part")
    try:
        table = pa.Table.from_pylist([asdict(row) for row in rows], schema=SCHEMA)
        pq.write_table(table, aside, compression="zstd", write_page_checksum=True)
        os.replace(aside, shard)
    finally:
        aside.unlink(missing_ok=True)
