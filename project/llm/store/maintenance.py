"""What is done to a store between runs: list, count, check, seal what dead writers left, compact, merge.

A folder given as a store must exist; UserError otherwise. Nothing here deletes a row that is not kept elsewhere.
"""

import json
import os
import secrets
import socket
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ...errors import UserError
from ..protocol import Request
from .store import SCHEMA, SEAL_AT, Row, Store, row_of, seal_journal, write_shard

COMPACT_AT = 1_000_000
"""Rows of one file after compaction."""


def files(folder: Path) -> list[Path]:
    """The journals and shards of a store, journals first. Raises UserError where there is no such folder."""
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder; give the folder of a store, or store.path=...")
    return [*sorted(folder.glob("*.journal")), *sorted(folder.glob("*.parquet"))]


def read_all_rows(path: Path) -> Iterator[Row]:
    """The rows of one journal or shard, with their prompts; torn lines of a journal are passed over."""
    if path.suffix == ".journal":
        yield from (row for row in _lines(path) if row is not None)
        return
    for batch in _batches(path):
        yield from (Row(**row) for row in batch.to_pylist())


def _batches(path: Path, columns: Sequence[str] = SCHEMA.names) -> Iterator[pa.RecordBatch]:
    try:
        yield from pq.ParquetFile(path, page_checksum_verification=True).iter_batches(columns=list(columns))
    except (pa.ArrowException, OSError) as error:
        raise UserError(
            f"{path} is torn or altered: {str(error).splitlines()[0]}; move it away, what it held is generated again"
        ) from error


def writer_is_alive(journal: Path, idle: float) -> bool:
    """Whether the writer of a journal may still be at work.

    A writer of this host lives as long as its process; one of another host counts as dead when its journal has not
    changed for `idle` minutes.
    """
    host, pid, *_ = [*journal.stem.rsplit("-", 3), "", ""]
    if host == socket.gethostname() and pid.isdigit():
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            return False
        except (PermissionError, OverflowError):
            pass
        return True
    return time.time() - journal.stat().st_mtime < 60 * idle


def listing(folder: Path, idle: float) -> pd.DataFrame:
    """One row a file: name, kind, rows, bytes, minutes since its last change, and for a journal whether it is written.

    Raises UserError where a shard is torn.
    """
    told = []
    for path in files(folder):
        journal = path.suffix == ".journal"
        kind = (
            ("journal, being written" if writer_is_alive(path, idle) else "journal, left behind")
            if journal
            else "shard"
        )
        try:
            rows = sum(1 for _ in read_all_rows(path)) if journal else pq.read_metadata(path).num_rows
        except (pa.ArrowException, OSError):
            kind, rows = "shard, torn", 0
        told.append((path.name, kind, rows, path.stat().st_size, (time.time() - path.stat().st_mtime) / 60))
    return pd.DataFrame(told, columns=["file", "kind", "rows", "bytes", "minutes"])


def stats(rows: Iterator[Row]) -> pd.DataFrame:
    """By model and stage: rows, redraws among them, the share cut off by the token limit, tokens and seconds."""
    costs = [
        (
            row.model,
            row.stage,
            1,
            json.loads(row.prompt)["attempt"] > 0,
            row.finish == "length",
            row.prompt_tokens,
            row.completion_tokens,
            row.seconds,
        )
        for row in rows
    ]
    columns = ["model", "stage", "rows", "redraws", "cut_off", "prompt_tokens", "completion_tokens", "seconds"]
    table = pd.DataFrame(costs, columns=columns).groupby(["model", "stage"], as_index=False).sum()
    return table.assign(cut_off=table["cut_off"] / table["rows"].clip(lower=1))


def iter_unique_rows(folder: Path) -> Iterator[Row]:
    """Every generation once, from journals and shards: of rows with one key the earliest (created, writer)."""
    paths = files(folder)
    for path, kept in zip(paths, _earliest(paths), strict=True):
        yield from (row for row, keep in zip(read_all_rows(path), kept, strict=False) if keep)


def _earliest(paths: Sequence[Path]) -> list[np.ndarray]:
    """For each file which of its rows are the earliest of their key; the prompts are not held."""
    places = ["key", "created", "writer"]
    empty = pd.DataFrame(columns=places)
    tables = [
        pd.DataFrame([(row.key, row.created, row.writer) for row in read_all_rows(path)], columns=places)
        if path.suffix == ".journal"
        else pd.concat([batch.to_pandas()[places] for batch in _batches(path, places)] or [empty])
        for path in paths
    ]
    whole = pd.concat(tables or [empty], ignore_index=True)
    first = whole.sort_values(["created", "writer"], kind="stable").drop_duplicates("key").index
    kept = np.zeros(len(whole), bool)
    kept[first] = True
    return np.split(kept, np.cumsum([len(table) for table in tables])[:-1]) if tables else []


def verify(folder: Path, idle: float) -> tuple[list[str], list[str]]:
    """What is damaged and what is only worth knowing, a line each, with file and row (counted from 1)."""
    damage, notes = [f"{path}: left over by a write that broke off; delete it" for path in folder.glob("*.part")], []
    seen: dict[str, tuple[str, int]] = {}
    same = different = 0
    for path in files(folder):
        try:
            rows = _lines(path) if path.suffix == ".journal" else read_all_rows(path)
            for number, row in enumerate(rows, 1):
                if row is None:
                    if number == len(rows) and writer_is_alive(path, idle):
                        notes.append(f"{path} row {number}: being written")
                    else:
                        damage.append(f"{path} row {number}: torn or altered; `store seal` drops it")
                    continue
                if _key(row) != row.key:
                    damage.append(f"{path} row {number}: its key is not the digest of its prompt and model")
                mark = path.name, zlib.crc32(row.completion.encode())
                if row.key in seen:
                    same += seen[row.key][1] == mark[1]
                    different += seen[row.key][1] != mark[1]
                    notes.append(f"{path} row {number}: its key is in {seen[row.key][0]} too")
                seen.setdefault(row.key, mark)
        except UserError as error:
            damage.append(str(error))
    if same or different:
        notes.append(
            f"{same + different} duplicate keys, {different} of them with another completion; the earliest is "
            "used everywhere, and `store compact` keeps it alone"
        )
    return damage, notes


def _lines(journal: Path) -> list[Row | None]:
    """The rows of a journal, with None for a torn or altered line."""
    with journal.open("rb") as file:
        return [row_of(line) for line in file]


def _key(row: Row) -> str | None:
    """The key that a row must have by its prompt and model; None where the prompt is no request."""
    try:
        settings = json.loads(row.prompt)
        return Request(row.stage, **settings).key(row.model)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def seal_dead(folder: Path, idle: float) -> tuple[list[str], list[str]]:
    """Seal the journals whose writers are dead; two lists of lines: what was sealed, and what was left to its writer.

    A writer that lives after all notices, and goes on in a new journal.
    """
    sealed, left = [], []
    for journal in sorted(folder.glob("*.journal")):
        if writer_is_alive(journal, idle):
            left.append(f"{journal}: its writer is at work, or was {idle:g} minutes ago")
            continue
        with suppress(FileNotFoundError):  # another process was faster
            shard, torn = seal_journal(journal)
            rows = pq.read_metadata(shard).num_rows
            sealed.append(f"{journal.name}: {rows} rows" + (f", {torn} torn lines dropped" if torn else ""))
    return sealed, left


def compact(folder: Path) -> tuple[int, int, int]:
    """Join the shards into few, without duplicates; returns how many files there were and are, and rows dropped.

    The new files are whole before the old ones are deleted, so that a kill leaves at worst rows that are twice there.
    Raises UserError where there is no room for them, and then leaves the store as it was.
    """
    old = [path for path in files(folder) if path.suffix == ".parquet"]
    kept = _earliest(old)
    dropped = int(sum((~rows).sum() for rows in kept))
    if not dropped and len(old) <= -(-sum(map(len, kept)) // COMPACT_AT):
        return len(old), len(old), 0
    new, writer, written = [], None, 0
    mark = secrets.token_hex(4)
    try:
        for path, keep in zip(old, kept, strict=True):
            place = 0
            for batch in _batches(path):
                part = batch.select(SCHEMA.names).filter(pa.array(keep[place : place + len(batch)]))
                place += len(batch)
                if writer is None or written + len(part) > COMPACT_AT:
                    if writer:
                        writer.close()
                    new.append(folder / f"compacted-{mark}-{len(new)}.parquet.part")
                    writer, written = pq.ParquetWriter(new[-1], SCHEMA, compression="zstd", write_page_checksum=True), 0
                writer.write_batch(part)
                written += len(part)
        writer.close()
    except OSError as error:
        for path in new:
            path.unlink(missing_ok=True)
        raise UserError(
            f"cannot compact {folder}: {error.strerror}; nothing was changed. It needs as much room again "
            "as the shards have"
        ) from error
    for path in new:
        os.replace(path, path.with_suffix(""))
    for path in old:
        path.unlink(missing_ok=True)
    return len(old), len(new), dropped


def merge(source: Path, into: Path) -> int:
    """Add to the store `into` what the store `source` has and it lacks, or has of a later date; returns the rows."""
    store, added, rows = Store(into), 0, []

    def write() -> int:
        known = store.find([row.key for row in rows])
        new = [
            row
            for row, have in zip(rows, known, strict=True)
            if have is None or (row.created, row.writer) < (have.created, have.writer)
        ]
        if new:
            into.mkdir(parents=True, exist_ok=True)
            write_shard(new, into / f"merged-{secrets.token_hex(8)}.parquet")
        return len(new)

    for row in iter_unique_rows(source):
        rows.append(row)
        if len(rows) == SEAL_AT:
            added += write()
            rows.clear()
    return added + write()


def write_single_file(folder: Path, path: Path) -> pa.Table:
    """Write every generation into one Parquet, by date, with writers numbered since their names hold host names."""
    rows = sorted(iter_unique_rows(folder), key=lambda row: (row.created, row.key))
    # As many digits as are needed keep the alphabetical order, which decides between rows of one date.
    writers = sorted({row.writer for row in rows})
    names = {name: f"writer-{number:0{len(str(len(writers)))}d}" for number, name in enumerate(writers, 1)}
    table = pa.Table.from_pylist([asdict(row) | {"writer": names[row.writer]} for row in rows], schema=SCHEMA)
    pq.write_table(table, path, compression="zstd", write_page_checksum=True)
    return table
