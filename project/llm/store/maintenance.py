"""Maintenance of a store between runs: list, count, verify, seal the journals of dead writers, compact, merge.

Each function raises UserError if the folder of the store does not exist. None deletes the last copy of a row.
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
from .shard_index import DAMAGE, check_columns, damaged, open_shard
from .store import SCHEMA, SEAL_AT, Row, Store, decode_row, seal_journal, write_shard

COMPACT_AT = 1_000_000
"""Maximum rows of a file after compaction."""


def files(folder: Path) -> list[Path]:
    """Return the journals and shards of a store, journals first. Raises UserError if the folder does not exist."""
    if not folder.is_dir():
        raise UserError(f"{folder} does not exist; give the folder of a store, or store.path=...")
    return [*sorted(folder.glob("*.journal")), *sorted(folder.glob("*.parquet"))]


def read_all_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of one journal or shard, with their prompts; skip torn lines of a journal."""
    if path.suffix == ".journal":
        yield from (row for row in _lines(path) if row is not None)
        return
    for batch in _batches(path):
        yield from (Row(**row) for row in batch.to_pylist())


def _batches(path: Path, columns: Sequence[str] = SCHEMA.names) -> Iterator[pa.RecordBatch]:
    try:
        file, rows = open_shard(path, SCHEMA), 0
        for batch in file.iter_batches(columns=list(columns)):
            check_columns(batch)
            rows += len(batch)
            yield batch
        if rows != file.metadata.num_rows:
            raise ValueError(f"{rows} of {file.metadata.num_rows} rows are readable")
    except DAMAGE as error:
        raise damaged(path, error) from error


def writer_is_alive(journal: Path, idle: float) -> bool:
    """Return True if the writer of a journal may still be running.

    A writer on this host is alive while its process exists; a writer on another host counts as dead after `idle`
    minutes without a change of its journal.
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
    """Return one row per file: name, kind, rows, bytes and minutes since its last change.

    `kind` tells shards, torn shards, journals being written and journals of dead writers.
    """
    table = []
    for path in files(folder):
        journal = path.suffix == ".journal"
        kind = (
            ("journal, being written" if writer_is_alive(path, idle) else "journal, left behind")
            if journal
            else "shard"
        )
        try:
            rows = sum(1 for _ in read_all_rows(path)) if journal else pq.read_metadata(path).num_rows
        except DAMAGE:
            kind, rows = "shard, torn", 0
        table.append((path.name, kind, rows, path.stat().st_size, (time.time() - path.stat().st_mtime) / 60))
    return pd.DataFrame(table, columns=["file", "kind", "rows", "bytes", "minutes"])


def stats(rows: Iterator[Row]) -> pd.DataFrame:
    """Return by model and stage: rows, redraws, share of completions at the token limit, tokens and seconds."""
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
    """Yield every generation once: of rows with equal keys, the one with the lowest (created, writer)."""
    paths = files(folder)
    for path, mask in zip(paths, _earliest(paths), strict=True):
        yield from (row for row, keep in zip(read_all_rows(path), mask, strict=False) if keep)


def _earliest(paths: Sequence[Path]) -> list[np.ndarray]:
    """Return for each file a mask of the rows that are the earliest of their key; prompts are not kept in memory."""
    columns = ["key", "created", "writer"]
    empty = pd.DataFrame(columns=columns)
    tables = [
        pd.DataFrame([(row.key, row.created, row.writer) for row in read_all_rows(path)], columns=columns)
        if path.suffix == ".journal"
        else pd.concat([batch.to_pandas()[columns] for batch in _batches(path, columns)] or [empty])
        for path in paths
    ]
    rows = pd.concat(tables or [empty], ignore_index=True)
    first = rows.sort_values(["created", "writer"], kind="stable").drop_duplicates("key").index
    mask = np.zeros(len(rows), bool)
    mask[first] = True
    return np.split(mask, np.cumsum([len(table) for table in tables])[:-1]) if tables else []


def verify(folder: Path, idle: float) -> tuple[list[str], list[str]]:
    """Return the damage and the notes on a store, one line each, with file and row (counted from 1)."""
    damage, notes = [f"{path}: left by an interrupted write; delete it" for path in folder.glob("*.part")], []
    first: dict[str, tuple[str, int]] = {}
    equal = different = 0
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
                checksum = zlib.crc32(row.completion.encode())
                if row.key in first:
                    name, first_checksum = first[row.key]
                    equal += first_checksum == checksum
                    different += first_checksum != checksum
                    notes.append(f"{path} row {number}: its key is also in {name}")
                first.setdefault(row.key, (path.name, checksum))
        except UserError as error:
            damage.append(str(error))
    if equal or different:
        notes.append(
            f"{equal + different} duplicate keys, {different} of them with another completion; runs use the earliest, "
            "and `store compact` drops the others"
        )
    return damage, notes


def _lines(journal: Path) -> list[Row | None]:
    """Return the rows of a journal, with None for a torn or altered line."""
    with journal.open("rb") as file:
        return [decode_row(line) for line in file]


def _key(row: Row) -> str | None:
    """Return the key computed from a row's prompt and model; None if the prompt is not a request."""
    try:
        settings = json.loads(row.prompt)
        return Request(row.stage, **settings).key(row.model)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def seal_dead(folder: Path, idle: float) -> tuple[list[str], list[str]]:
    """Seal the journals of dead writers; return one line for each sealed journal and one for each that was not sealed.

    A writer wrongly considered dead detects this and opens a new journal.
    """
    sealed, left = [], []
    for journal in sorted(folder.glob("*.journal")):
        if writer_is_alive(journal, idle):
            left.append(f"{journal}: its writer is running, or was less than {idle:g} minutes ago")
            continue
        with suppress(FileNotFoundError):  # another process sealed it first
            shard, torn = seal_journal(journal)
            rows = pq.read_metadata(shard).num_rows
            sealed.append(f"{journal.name}: {rows} rows" + (f", {torn} torn lines dropped" if torn else ""))
    return sealed, left


def compact(folder: Path) -> tuple[int, int, int]:
    """Join the shards without duplicates; return the numbers of shards before and after, and of dropped rows.

    The new files are complete before the old ones are deleted, so that a kill leaves at worst duplicate rows. Raises
    UserError if they cannot be written, and then leaves the store unchanged.
    """
    old = [path for path in files(folder) if path.suffix == ".parquet"]
    masks = _earliest(old)
    dropped = int(sum((~mask).sum() for mask in masks))
    if not dropped and len(old) <= -(-sum(map(len, masks)) // COMPACT_AT):
        return len(old), len(old), 0
    new, writer, rows = [], None, 0
    suffix = secrets.token_hex(4)
    try:
        for path, mask in zip(old, masks, strict=True):
            start = 0
            for batch in _batches(path):
                part = batch.select(SCHEMA.names).filter(pa.array(mask[start : start + len(batch)]))
                start += len(batch)
                if writer is None or rows + len(part) > COMPACT_AT:
                    if writer:
                        writer.close()
                    new.append(folder / f"compacted-{suffix}-{len(new)}.parquet.part")
                    writer, rows = pq.ParquetWriter(new[-1], SCHEMA, compression="zstd", write_page_checksum=True), 0
                writer.write_batch(part)
                rows += len(part)
        writer.close()
    except OSError as error:
        for path in new:
            path.unlink(missing_ok=True)
        raise UserError(
            f"cannot compact {folder}: {error.strerror}; the store is unchanged. Compaction needs as much free disk "
            "space as the shards take"
        ) from error
    for path in new:
        os.replace(path, path.with_suffix(""))
    for path in old:
        path.unlink(missing_ok=True)
    return len(old), len(new), dropped


def merge(source: Path, into: Path) -> int:
    """Add the rows of `source` that `into` lacks or has with a later (created, writer); return the number of rows."""
    store, added, rows = Store(into), 0, []

    def write() -> int:
        existing = store.find([row.key for row in rows])
        new = [
            row
            for row, other in zip(rows, existing, strict=True)
            if other is None or (row.created, row.writer) < (other.created, other.writer)
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
    """Write all generations to one Parquet file, sorted by date, with numbered writers in place of host names."""
    rows = sorted(iter_unique_rows(folder), key=lambda row: (row.created, row.key))
    # Zero-padded numbers keep the alphabetical order of writers, which breaks ties between equal dates.
    writers = sorted({row.writer for row in rows})
    names = {name: f"writer-{number:0{len(str(len(writers)))}d}" for number, name in enumerate(writers, 1)}
    table = pa.Table.from_pylist([asdict(row) | {"writer": names[row.writer]} for row in rows], schema=SCHEMA)
    pq.write_table(table, path, compression="zstd", write_page_checksum=True)
    return table
