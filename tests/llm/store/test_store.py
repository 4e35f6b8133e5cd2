"""The store loses no generation, in any order of writes, closes, kills and reads."""

import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from project.errors import UserError
from project.llm.protocol import Completion, Request
from project.llm.store import store as store_module
from project.llm.store.maintenance import read_all_rows
from project.llm.store.store import Row, Store, decode_row, seal_journal, write_shard

MODEL = "model"


def request_of(number):
    return Request("summary", (("system", "Be brief."), ("user", f"number {number}")), 0.0, 16)


def key_of(number):
    return request_of(number).key(MODEL)


def put(store, number, text="text", created=None):
    """Store one generation, at the time `created` if given."""
    completion = Completion(text, "stop", 3, 2, 0.25)
    if created is None:
        return store.put(request_of(number), MODEL, completion, ("loop", "empty"))
    with patch.object(store_module.time, "time", lambda: created):
        return store.put(request_of(number), MODEL, completion)


def texts(store):
    return {row.key: row.completion for row in store.find(sorted(store.keys()))}


def files(folder, pattern="*"):
    return sorted(path.name for path in Path(folder).glob(pattern))


def snapshot(folder):
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


class Writers(RuleBasedStateMachine):
    """Three writers of one folder that put, close, restart and refresh, in any order.

    Each generation has a distinct time, and clocks differ between writers, so that a later one may seem earlier.
    """

    numbers, writers = st.integers(0, 4), st.integers(0, 2)

    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.stores = [self.open() for _ in range(3)]
        self.visible = [set(), set(), set()]
        self.earliest = {}
        self.count = 0

    def open(self):
        return Store(self.folder.name)

    @rule(writer=writers, number=numbers, clock=st.integers(0, 9), text=st.text(max_size=5))
    def put(self, writer, number, clock, text):
        self.count += 1
        created = clock + self.count / 1000
        put(self.stores[writer], number, text, created)
        current = self.earliest.get(key_of(number))
        self.earliest[key_of(number)] = min(current or (created, text), (created, text))
        self.visible[writer].add(key_of(number))

    @rule(writer=writers)
    def close(self, writer):
        self.stores[writer].close()

    @rule(writer=writers)
    def restart(self, writer):
        self.stores[writer] = self.open()
        self.visible[writer] = set(self.earliest)

    @rule(writer=writers)
    def refresh(self, writer):
        self.stores[writer].refresh()
        self.visible[writer] = set(self.earliest)
        self.check_complete(self.stores[writer])

    @invariant()
    def no_visible_key_is_lost(self):
        for store, keys in zip(self.stores, self.visible, strict=True):
            assert all(store.get(key) is not None for key in keys)

    @invariant()
    def a_new_reader_has_every_text(self):
        self.check_complete(self.open())

    def check_complete(self, store):
        assert texts(store) == {key: text for key, (_, text) in self.earliest.items()}

    def teardown(self):
        for store in self.stores:
            store.close()
        self.check_complete(self.open())
        self.folder.cleanup()


TestWriters = Writers.TestCase
TestWriters.settings = settings(max_examples=20, stateful_step_count=12)


def test_a_row_is_read_unchanged_from_journal_and_shard(tmp_path):
    with Store(tmp_path) as store:
        row = put(store, 1, 'line\nbreak, "quotes", \u2028, ü and 🐛')
        assert row.flags == "loop,empty" and row.writer == store.writer
        assert row.prompt == ""  # look-ups leave it empty
        (journal,) = tmp_path.glob("*.journal")
        (full_row,) = read_all_rows(journal)
        assert json.loads(full_row.prompt) == {
            "messages": [["system", "Be brief."], ["user", "number 1"]],
            "temperature": 0.0,
            "max_tokens": 16,
            "schema": None,
            "round": 0,
            "attempt": 0,
        }
        assert Store(tmp_path).get(row.key) == row == replace(full_row, prompt="")
    assert files(tmp_path, "*.journal") == []
    assert Store(tmp_path).get(row.key) == row
    (shard,) = tmp_path.glob("*.parquet")
    assert list(read_all_rows(shard)) == [full_row]
    assert Store(tmp_path).get(key_of(2)) is None


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_a_torn_last_line_loses_only_that_line(tmp_path, cut):
    store = Store(tmp_path)
    for number in range(3):
        put(store, number)
    (journal,) = tmp_path.glob("*.journal")
    journal.write_bytes(journal.read_bytes()[:-cut])
    assert set(texts(Store(tmp_path))) == {key_of(0), key_of(1)}
    shard, torn = seal_journal(journal)
    assert torn == 1
    assert [row["key"] for row in pq.read_table(shard).to_pylist()] == [key_of(0), key_of(1)]


def test_a_line_being_written_is_read_when_it_is_complete(tmp_path):
    put(Store(tmp_path / "writer"), 1)
    line = next((tmp_path / "writer").glob("*.journal")).read_bytes()
    reader_folder = tmp_path / "reader"
    reader_folder.mkdir()
    journal = reader_folder / "slow.journal"
    journal.write_bytes(line[:30])
    reader = Store(reader_folder)
    assert len(reader.keys()) == 0
    with journal.open("ab") as file:
        file.write(line[30:])
    reader.refresh()
    assert set(texts(reader)) == {key_of(1)}


@given(st.floats(0, 1, exclude_max=True), st.integers(1, 255))
@settings(max_examples=30)
def test_only_the_altered_line_is_ignored(position, change):
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        for number in range(3):
            put(store, number)
        (journal,) = Path(folder).glob("*.journal")
        lines = journal.read_bytes().splitlines(keepends=True)
        altered = bytearray(lines[1])
        altered[int(position * (len(altered) - 1))] ^= change
        journal.write_bytes(lines[0] + altered.replace(b"\n", b"\t")[:-1] + b"\n" + lines[2])
        assert set(texts(Store(folder))) == {key_of(0), key_of(2)}
        assert pq.read_table(seal_journal(journal)[0]).num_rows == 2


def test_two_writers_read_each_other_after_a_refresh(tmp_path):
    one, other = Store(tmp_path), Store(tmp_path)
    put(one, 1, "of one")
    put(other, 2, "of the other")
    assert len(one.keys()) == len(other.keys()) == 1
    for store in (one, other):
        store.refresh()
        assert texts(store) == {key_of(1): "of one", key_of(2): "of the other"}
    one.close()
    put(one, 3, "later")
    other.refresh()
    assert other.get(key_of(3)).completion == "later"
    assert one.writer != other.writer


rows = st.lists(
    st.tuples(st.integers(0, 1), st.integers(0, 2), st.sampled_from("xyz"), st.booleans()),
    min_size=1,
    max_size=6,
    unique_by=lambda row: row[:3],
)


@given(rows, st.permutations([0, 1]))
@settings(max_examples=40)
def test_the_earliest_row_of_a_key_wins_in_any_reading_order(rows, order):
    """Some times are equal on purpose: the writer breaks the tie."""
    with tempfile.TemporaryDirectory() as top:
        folders = [Path(top) / str(number) for number in order]
        for index, (number, created, writer, closed) in enumerate(rows):
            store = Store(folders[index % 2])
            store.writer = writer
            put(store, number, f"{created} by {writer}", created)
            if closed:
                store.close()
        expected = {
            key_of(number): f"{created} by {writer}"
            for number, created, writer, _ in sorted(rows, key=lambda row: row[1:3], reverse=True)
        }
        assert texts(Store(folders[0], (folders[1],))) == expected
        assert texts(Store(folders[1], (folders[0],))) == expected


def test_put_returns_the_earliest_row(tmp_path):
    store = Store(tmp_path)
    first = put(store, 1, "first", created=5)
    assert put(store, 1, "later", created=6) == first
    assert put(store, 1, "earlier", created=4).completion == "earlier"


def test_close_leaves_one_shard_and_no_journal(tmp_path):
    store = Store(tmp_path)
    for number in range(5):
        put(store, number)
    assert [Path(name).suffix for name in files(tmp_path)] == [".journal"]
    store.close()
    assert [Path(name).suffix for name in files(tmp_path)] == [".parquet"]
    assert len(store.keys()) == len(Store(tmp_path).keys()) == 5
    store.close()
    assert len(files(tmp_path)) == 1


def test_a_full_journal_is_sealed_before_close(tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "SEAL_AT", 3)
    store = Store(tmp_path)
    for number in range(7):
        put(store, number)
    assert len(files(tmp_path, "*.parquet")) == 2 and len(files(tmp_path, "*.journal")) == 1
    assert len(Store(tmp_path).keys()) == 7


def test_reading_creates_no_file(tmp_path):
    with Store(tmp_path / "absent", (tmp_path / "absent too",)) as store:
        assert len(store.keys()) == 0
    assert files(tmp_path) == []


def test_a_recorded_folder_is_read_but_not_written(tmp_path):
    recorded = tmp_path / "recorded"
    with Store(recorded) as store:
        put(store, 1, "sealed", created=5)
    put(Store(recorded), 2, "in a journal", created=5)
    before = snapshot(recorded)
    with Store(tmp_path / "own", (recorded,)) as store:
        assert set(texts(store).values()) == {"sealed", "in a journal"}
        put(store, 1, "again")
        put(store, 3, "new")
        store.refresh()
    assert snapshot(recorded) == before
    assert texts(store) == {key_of(1): "sealed", key_of(2): "in a journal", key_of(3): "new"}


def test_a_killed_writer_loses_no_finished_row(tmp_path):
    code = f"""
import itertools
from project.llm.protocol import Completion, Request
from project.llm.store.store import Store
store = Store({str(tmp_path)!r})
for number in itertools.count():
    request = Request("summary", (("user", f"number {{number}}"),), 0.0, 16)
    print(store.put(request, "model", Completion("long text " * 50, "stop", 1, 1, 0.1)).key, flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as writer:
        printed = [writer.stdout.readline().strip() for _ in range(30)]
        writer.kill()
        printed += [line.strip() for line in writer.stdout if line.endswith("\n")]
    assert writer.returncode == -9
    assert len(files(tmp_path, "*.journal")) == 1 and files(tmp_path, "*.parquet") == []
    store = Store(tmp_path)
    assert all(store.get(key).completion == "long text " * 50 for key in printed) and len(set(printed)) >= 30
    with store:
        put(store, 1)
    assert len(Store(tmp_path).keys()) == len(store.keys())


CHANGES = {
    "stage": "style",
    "messages": (("user", "other"),),
    "temperature": 0.5,
    "max_tokens": 17,
    "schema": "{}",
    "round": 1,
    "attempt": 1,
    "images": ("digest",),
}


@pytest.mark.parametrize("field", [field for field in Request.__dataclass_fields__ if field != "pixels"])
def test_a_key_depends_on_each_field_except_the_stage(field):
    request = request_of(1)
    changed = replace(request, **{field: CHANGES[field]})
    assert changed != request
    assert (changed.key(MODEL) == request.key(MODEL)) == (field == "stage")


def test_a_key_depends_on_model_roles_and_order_of_messages():
    request = request_of(1)
    reversed_messages = replace(request, messages=request.messages[::-1])
    other_role = replace(request, messages=tuple(("user", content) for _, content in request.messages))
    keys = {request.key(MODEL), request.key("other"), reversed_messages.key(MODEL), other_role.key(MODEL)}
    assert len(keys) == 4


def test_the_key_of_recorded_texts_is_unchanged():
    """Another key would make all recorded texts unreachable."""
    assert request_of(1).key(MODEL) == "4724805a23f042adeb2e4f2728f75cdb254c8c854ddb21f7e80814db97b4366a"


def test_keys_with_an_equal_prefix_are_distinct(tmp_path):
    """A look-up searches by the first 64 bits, then compares the full key and takes the earliest row."""
    prefix = "0123456789abcdef"
    keys = [prefix + digit * 48 for digit in "0af"]
    rows = [
        Row(key, "summary", "{}", f"{key} at {created}", "stop", 1, 1, 1.0, MODEL, "", created, "w")
        for key in keys
        for created in (3.0, 1.0, 2.0)
    ]
    write_shard(rows[:5], tmp_path / "one.parquet")
    write_shard(rows[5:], tmp_path / "two.parquet")
    wanted = [keys[2], prefix + "1" * 48, keys[0], keys[1], "f" * 64, "0" * 64]
    assert [row and row.completion for row in Store(tmp_path).find(wanted)] == [
        f"{keys[2]} at 1.0",
        None,
        f"{keys[0]} at 1.0",
        f"{keys[1]} at 1.0",
        None,
        None,
    ]


def test_shards_are_listed_again_if_one_was_deleted_before_reading(tmp_path, monkeypatch):
    for number in range(2):
        with Store(tmp_path) as store:
            put(store, number)
    listed, original = [], Path.glob

    def glob_with_a_deleted_shard(self, pattern):
        paths = list(original(self, pattern))
        if pattern == "*.parquet" and not listed:
            listed.append(True)
            paths.append(self / "deleted.parquet")
        return paths

    monkeypatch.setattr(Path, "glob", glob_with_a_deleted_shard)
    assert len(Store(tmp_path).keys()) == 2 and listed


def test_another_parquet_file_is_an_error(tmp_path):
    (tmp_path / "other.parquet").write_bytes(b"no Parquet")
    with pytest.raises(UserError, match="other.parquet is damaged or not a shard of a store"):
        Store(tmp_path)


def test_refresh_returns_the_number_of_new_rows(tmp_path):
    reader, writer = Store(tmp_path), Store(tmp_path)
    assert reader.refresh() == 0
    put(writer, 1), put(writer, 2)
    assert (reader.refresh(), reader.refresh()) == (2, 0)


def test_mean_costs_by_stage_cover_journal_and_shard(tmp_path):
    assert Store(tmp_path).mean_costs(MODEL) == {}
    with Store(tmp_path) as store:
        put(store, 1)
    live = Store(tmp_path)
    live.put(request_of(2), MODEL, Completion("t", "stop", 5, 4, 0.75))
    live.put(replace(request_of(2), round=1), "other", Completion("t", "stop", 50, 40, 7.5))
    assert live.mean_costs(MODEL) == {"summary": (4.0, 3.0, 0.5)}


FULL = """
import resource, signal, sys
from project.errors import UserError
from project.llm.store.store import Store
from tests.llm.store.test_store import put
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = Store(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, resource.RLIM_INFINITY))
for number in range(100):
    try:
        put(store, number, "x" * 100)
    except UserError as error:
        print(number, error)
        break
try:
    store.close()
except UserError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
put(store, 1000)
"""


def test_a_full_disk_is_one_line_leaves_no_torn_line_and_writing_can_resume(tmp_path):
    """A limit on the file size raises the same error of a real write as a full disk."""
    done = subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, *_ = done.stdout.splitlines()
    number, message = first.split(maxsplit=1)
    assert message.startswith(f"cannot write to the store {tmp_path}: ") and "run the same command" in message
    (journal,) = tmp_path.glob("*.journal")
    lines = journal.read_bytes().splitlines(keepends=True)
    assert all(decode_row(line) for line in lines) and not list(tmp_path.glob("*.part"))
    assert {key_of(index) for index in [*range(int(number)), 1000]} == Store(tmp_path).keys()


def test_the_journal_remains_if_its_shard_cannot_be_written(tmp_path, monkeypatch):
    store = Store(tmp_path)
    put(store, 1)

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store_module.pq, "write_table", fail)
    with pytest.raises(UserError, match="cannot seal .*No space left on device; it keeps every text"):
        store.close()
    assert [Path(name).suffix for name in files(tmp_path)] == [".journal"] and Store(tmp_path).keys() == {key_of(1)}
    with pytest.raises(RuntimeError, match="first"), store:
        raise RuntimeError("the first error is raised")


@pytest.mark.parametrize("read", ["look-up", "all columns"])
def test_a_flipped_bit_in_a_shard_is_an_error_or_changes_no_row(tmp_path, read):
    with Store(tmp_path / "intact") as store:
        for number in range(20):
            put(store, number, f"text {number}")
        keys = sorted(store.keys())
    (shard,) = (tmp_path / "intact").glob("*.parquet")
    altered = tmp_path / "altered" / shard.name
    altered.parent.mkdir()

    def rows(path):
        if read == "all columns":
            return list(read_all_rows(path))
        opened = Store(path.parent)
        return opened.keys(), opened.find(keys)

    intact, data, errors = rows(shard), shard.read_bytes(), 0
    for bit in range(0, 8 * len(data), 37):  # 37 is odd: every position in a byte occurs, footer included
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        altered.write_bytes(flipped)
        try:
            assert rows(altered) == intact, f"bit {bit}"
        except UserError as error:
            errors += 1
            assert str(altered) in str(error) and "store verify" in str(error) and "\n" not in str(error)
    assert errors > len(data) / 37


def test_a_shard_that_the_system_cannot_read_is_not_called_damaged(tmp_path):
    (tmp_path / "folder.parquet").symlink_to(tmp_path / "folder.parquet")
    with pytest.raises(UserError, match="folder.parquet cannot be read: ") as error:
        Store(tmp_path)
    assert "remove" not in str(error.value)


def test_a_shard_without_page_checksums_is_read(tmp_path):
    with Store(tmp_path / "new") as store:
        put(store, 1, "text")
        expected = store.find([key_of(1)])
    (shard,) = (tmp_path / "new").glob("*.parquet")
    (tmp_path / "old").mkdir()
    pq.write_table(pq.read_table(shard), tmp_path / "old" / "old.parquet", compression="zstd")
    assert Store(tmp_path / "old").find([key_of(1)]) == expected
    assert len(list(read_all_rows(tmp_path / "old" / "old.parquet"))) == 1
