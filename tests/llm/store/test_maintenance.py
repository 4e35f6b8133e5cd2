"""Maintenance of a store: no text is lost, damage is located, and joined stores have no duplicates."""

import hashlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest.mock import patch

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from project.errors import UserError
from project.llm.protocol import Completion, Request
from project.llm.store import maintenance
from project.llm.store import store as store_module
from project.llm.store.export_card import export
from project.llm.store.store import SCHEMA, Row, Store, encode_row, write_shard

MODEL = "model"
DEAD = f"{socket.gethostname()}-999999999-0000beef"


def request_of(number, attempt=0):
    return Request("summary", (("system", "Be brief."), ("user", f"number {number}")), 0.0, 16, attempt=attempt)


def put(store, number, text="text", created=1.0, attempt=0):
    with patch.object(store_module.time, "time", lambda: created):
        return store.put(request_of(number, attempt), MODEL, Completion(text, "stop", 3, 2, 0.25))


def texts(folder):
    store = Store(folder)
    return {row.key: row.completion for row in store.find(sorted(store.keys()))}


def write_journal(folder, numbers, torn=b"", writer=DEAD):
    """Write the journal of a killed process; return its path."""
    with Store(folder / "temporary") as store:
        rows = [put(store, number) for number in numbers]
    full = list(maintenance.iter_unique_rows(folder / "temporary"))
    assert {row.key for row in full} == {row.key for row in rows}
    journal = folder / f"{writer}-00000001.journal"
    journal.write_bytes(b"".join(map(encode_row, full)) + torn)
    for path in (folder / "temporary").iterdir():
        path.unlink()
    return journal


class TestSeal:
    def test_the_journal_of_a_dead_process_is_sealed_without_its_torn_line(self, tmp_path):
        journal = write_journal(tmp_path, [1, 2], torn=b"0badc0de {")
        before = texts(tmp_path)
        sealed, left = maintenance.seal_dead(tmp_path, 60)
        assert sealed == [f"{journal.name}: 2 rows, 1 torn lines dropped"] and left == []
        assert not journal.exists() and texts(tmp_path) == before and len(before) == 2

    def test_the_journal_of_a_running_process_is_not_sealed(self, tmp_path):
        store = Store(tmp_path)
        put(store, 1)
        sealed, left = maintenance.seal_dead(tmp_path, 0)
        assert sealed == [] and store.writer in left[0] and len(list(tmp_path.glob("*.journal"))) == 1

    @pytest.mark.parametrize(("minutes", "count"), [(59, 0), (61, 1)])
    def test_the_journal_of_another_host_is_sealed_after_idle_minutes(self, tmp_path, minutes, count):
        journal = write_journal(tmp_path, [1], writer="some-other-node-12-00000000")
        modified = time.time() - 60 * minutes
        os.utime(journal, (modified, modified))
        assert len(maintenance.seal_dead(tmp_path, 60)[0]) == count

    def test_a_writer_continues_after_its_journal_was_sealed(self, tmp_path):
        store = Store(tmp_path)
        put(store, 1)
        store_module.seal_journal(next(tmp_path.glob("*.journal")))
        put(store, 2)
        assert len(texts(tmp_path)) == 2
        store.close()
        assert len(texts(tmp_path)) == 2 and not list(tmp_path.glob("*.journal"))
        assert maintenance.verify(tmp_path, 60)[0] == []

    def test_two_processes_can_seal_at_once(self, tmp_path):
        write_journal(tmp_path, range(200))
        before = texts(tmp_path)
        code = (
            "from pathlib import Path; from project.llm.store.maintenance import seal_dead; "
            f"seal_dead(Path({str(tmp_path)!r}), 60)"
        )
        processes = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
        assert [process.wait() for process in processes] == [0, 0] and texts(tmp_path) == before


class TestVerify:
    def test_an_intact_store_has_no_damage_and_no_notes(self, tmp_path):
        with Store(tmp_path) as store:
            for number in range(5):
                put(store, number)
        assert maintenance.verify(tmp_path, 60) == ([], [])

    @given(position=st.floats(0, 1, exclude_max=True), change=st.integers(1, 255))
    @settings(max_examples=25)
    def test_an_altered_byte_is_detected_or_changes_no_text(self, position, change):
        with tempfile.TemporaryDirectory() as folder:
            with Store(folder) as store:
                put(store, 1, "a text of some length " * 20)
            before = texts(folder)
            (shard,) = Path(folder).glob("*.parquet")
            pages = pq.read_metadata(shard).row_group(0)
            column = next(
                pages.column(index)
                for index in range(pages.num_columns)
                if pages.column(index).path_in_schema == "completion"
            )
            content = bytearray(shard.read_bytes())
            start = column.dictionary_page_offset or column.data_page_offset
            content[start + int(position * column.total_compressed_size)] ^= change
            shard.write_bytes(content)
            damage, _ = maintenance.verify(Path(folder), 60)
            # Page headers have statistics without a checksum, which no look-up reads.
            assert (len(damage) == 1 and shard.name in damage[0]) or texts(folder) == before

    def test_a_truncated_shard_is_named(self, tmp_path):
        with Store(tmp_path) as store:
            put(store, 1)
        (shard,) = tmp_path.glob("*.parquet")
        shard.write_bytes(shard.read_bytes()[:-20])
        (damage,), _ = maintenance.verify(tmp_path, 60)
        assert f"{shard} is damaged or not a shard of a store" in damage
        with pytest.raises(UserError, match="is damaged or not a shard of a store"):
            Store(tmp_path)

    def test_a_row_with_a_changed_prompt_is_located(self, tmp_path):
        with Store(tmp_path) as store:
            put(store, 1), put(store, 2)
        (shard,) = tmp_path.glob("*.parquet")
        rows = pq.read_table(shard).to_pylist()
        rows[1]["prompt"] = rows[1]["prompt"].replace("number", "numbers")
        write_shard([Row(**row) for row in rows], shard)
        (damage,), _ = maintenance.verify(tmp_path, 60)
        assert damage == f"{shard} row 2: its key is not the digest of its prompt and model"

    def test_duplicates_are_notes_and_not_damage(self, tmp_path):
        for name, text in (("a", "one"), ("b", "one"), ("c", "other")):
            with Store(tmp_path / name) as store:
                put(store, 1, text)
            next((tmp_path / name).glob("*.parquet")).rename(tmp_path / f"{name}.parquet")
        damage, notes = maintenance.verify(tmp_path, 60)
        assert damage == [] and notes[-1].startswith("2 duplicate keys, 1 of them with another completion")
        assert f"{tmp_path / 'b.parquet'} row 1: its key is also in a.parquet" in notes

    def test_a_torn_line_is_damage_only_if_its_writer_is_dead(self, tmp_path):
        write_journal(tmp_path, [1], torn=b"0badc0de {")
        store = Store(tmp_path)
        put(store, 2)
        own = next(path for path in tmp_path.glob("*.journal") if path.name.startswith(store.writer))
        with own.open("ab") as file:
            file.write(b"half a li")
        damage, notes = maintenance.verify(tmp_path, 60)
        assert len(damage) == 1 and DEAD in damage[0] and "row 2: torn" in damage[0]
        assert notes == [f"{own} row 2: being written"]

    def test_the_file_of_an_interrupted_write_is_named(self, tmp_path):
        (tmp_path / "x.parquet.part").write_bytes(b"")
        assert "x.parquet.part" in maintenance.verify(tmp_path, 60)[0][0]


numbers = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 3), st.sampled_from("xyz")), min_size=1, max_size=12)


@given(numbers, st.integers(1, 4))
@settings(max_examples=30)
def test_compact_and_merge_change_no_text_and_drop_duplicates(rows, limit):
    with tempfile.TemporaryDirectory() as top:
        folder, into = Path(top) / "store", Path(top) / "into"
        for number, created, text in rows:
            with Store(folder) as store:
                put(store, number, text, created)
        before = texts(folder)
        assert maintenance.merge(folder, into) == len(before) and texts(into) == before
        assert maintenance.merge(folder, into) == 0
        with patch.object(maintenance, "COMPACT_AT", limit):
            before_count, after_count, dropped = maintenance.compact(folder)
        assert texts(folder) == before and dropped == len(rows) - len(before)
        assert after_count == len(list(folder.iterdir())) <= before_count
        assert sum(pq.read_metadata(path).num_rows for path in folder.iterdir()) == len(before)


def test_merge_keeps_the_earlier_row_and_its_sources(tmp_path):
    for name, text, created in (("a", "later", 5), ("b", "earlier", 4)):
        with Store(tmp_path / name) as store:
            put(store, 1, text, created)
    journal = write_journal(tmp_path / "b", [2])
    content = journal.read_bytes()
    assert [maintenance.merge(tmp_path / name, tmp_path / "into") for name in "ab"] == [1, 2]
    assert sorted(texts(tmp_path / "into").values()) == ["earlier", "text"] and journal.read_bytes() == content


def test_compact_changes_neither_journals_nor_a_single_shard(tmp_path):
    with Store(tmp_path) as store:
        put(store, 1)
    (shard,) = tmp_path.glob("*.parquet")
    write_journal(tmp_path, [2])
    before = shard.read_bytes()
    assert maintenance.compact(tmp_path) == (1, 1, 0) and shard.read_bytes() == before
    assert len(list(tmp_path.glob("*.journal"))) == 1


def test_an_open_store_reads_new_rows_after_a_compaction(tmp_path):
    for number in range(3):
        with Store(tmp_path) as store:
            put(store, number)
    reader = Store(tmp_path)
    maintenance.compact(tmp_path)
    with Store(tmp_path) as store:
        put(store, 9)
    reader.refresh()
    assert len(reader.keys()) == 4


class TestExport:
    @pytest.fixture
    def exported(self, tmp_path):
        for number in range(3):
            with Store(tmp_path / "store") as store:
                put(store, number, created=10.0 - number, attempt=number % 2)
        return tmp_path / "store", tmp_path / "out"

    def test_the_export_has_all_generations_by_date_and_is_a_store(self, exported):
        folder, out = exported
        assert export(folder, out) == 3
        table = pq.read_table(out / "generations.parquet")
        assert table.schema.equals(SCHEMA) and table["created"].to_pylist() == [8.0, 9.0, 10.0]
        assert texts(out) == texts(folder) and sorted(path.name for path in out.iterdir()) == [
            "README.md",
            "generations.parquet",
        ]

    def test_the_card_has_model_prompts_counts_and_digest_but_no_host(self, exported):
        export(*exported)
        card = (exported[1] / "README.md").read_text()
        assert "| model | summary | 3 | 1 |" in card and "Be brief." in card and "1970-01-01" in card
        (digest,) = (word for word in card.replace("`", " ").split() if len(word.strip(").")) == 64)
        assert digest.strip(").") == hashlib.sha256((exported[1] / "generations.parquet").read_bytes()).hexdigest()
        everything = card + json.dumps(pq.read_table(exported[1] / "generations.parquet").to_pylist())
        assert socket.gethostname() not in everything and "writer-1" in everything

    def test_a_folder_with_files_is_refused(self, exported):
        exported[1].mkdir()
        (exported[1] / "other").touch()
        with pytest.raises(UserError, match="not empty"):
            export(*exported)
        assert [path.name for path in exported[1].iterdir()] == ["other"]
