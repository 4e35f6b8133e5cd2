"""prepare generates each text once, in shards, across kills and full disks, and estimates the cost."""

import json
import subprocess
import sys
import threading

import pytest

from project.cli import prepare
from project.config.compose import load_config
from project.errors import UserError
from project.llm import factory as engines
from project.llm.protocol import Request
from project.llm.store.store import Store, decode_row, encode_row
from tests.conftest import Scripted


@pytest.fixture
def args(tiny_args):
    """Arguments of a preparation of about two hundred texts, without the folder of the store."""
    return [*tiny_args, "method=ours", "alignment.style=false", "data.limit=16"]


def completions(folder):
    """Return the completion of every key of a store, including its journals."""
    store = Store(folder)
    return {row.key: row.completion for row in store.find(sorted(store.keys()))}


@pytest.fixture
def prepared(args, monkeypatch):
    """Return a function that prepares a store with a scripted engine and returns the generated requests."""

    def run(folder, *settings, engine=None, **options):
        engine = engine or Scripted()
        monkeypatch.setattr(engines, "_engine", lambda config: engine)
        prepare.run(load_config([*args, f"store.path={folder}", *settings]), options)
        return engine.asked

    return run


def test_a_second_preparation_generates_nothing(prepared, tmp_path, capsys):
    requests = prepared(tmp_path / "s")
    stored = completions(tmp_path / "s")
    assert len(requests) == len(set(requests)) and prepared(tmp_path / "s") == []
    assert completions(tmp_path / "s") == stored
    assert "0 generated" in capsys.readouterr().out


def test_sequential_shards_generate_the_texts_of_a_single_run(prepared, tmp_path):
    prepared(tmp_path / "single")
    first = prepared(tmp_path / "shards", "store.takeover_seconds=0.01", shard="0/2")
    second = prepared(tmp_path / "shards", "store.takeover_seconds=0.01", shard="1/2")
    assert first and not second  # without progress of the second shard, the first generated all texts
    assert completions(tmp_path / "shards") == completions(tmp_path / "single")


def test_parallel_shards_generate_the_texts_of_a_single_run_without_overlap(prepared, args, tmp_path, monkeypatch):
    prepared(tmp_path / "single")
    shards = [Scripted(), Scripted()]
    # One engine per thread, because both shards run in this process.
    monkeypatch.setattr(engines, "_engine", lambda config: shards[int(threading.current_thread().name)])
    config = load_config([*args, f"store.path={tmp_path / 'shards'}", "store.takeover_seconds=30"])
    threads = [
        threading.Thread(target=prepare.run, args=(config, {"shard": f"{index}/2"}), name=str(index))
        for index in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert completions(tmp_path / "shards") == completions(tmp_path / "single")
    requests = [request for shard in shards for request in shard.asked]
    assert all(shard.asked for shard in shards) and len(requests) == len(set(requests))


@pytest.mark.parametrize("shard", ["2/2", "1", "a/b", "-1/2", "0/0"])
def test_an_invalid_shard_raises_an_error(prepared, tmp_path, shard):
    with pytest.raises(UserError, match="shard="):
        prepared(tmp_path / "s", shard=shard)


def test_a_condition_that_leaves_the_input_unchanged_needs_no_generation(prepared, tmp_path):
    one_level = prepared(tmp_path / "one", "robustness.levels=[0.5]")
    two_levels = prepared(tmp_path / "two", "robustness.levels=[0.0,0.5]")
    assert len(two_levels) == len(one_level)


class TestDryRun:
    def output(self, prepared, tmp_path, capsys, *settings):
        assert prepared(tmp_path / "s", *settings, dry_run="true") == []
        return capsys.readouterr().out

    def test_it_counts_calls_by_stage_and_stores_no_generation(self, prepared, tmp_path, capsys):
        output = self.output(prepared, tmp_path, capsys)
        assert "calls to generate (" in output and " perturb, " in output and " summary)" in output
        assert "Time: unknown" in output and "data.limit=20" in output
        assert "Money: none, the model runs here." in output
        assert all(
            Store(tmp_path / "s").find([key])[0].model != "smollm2-135m-instruct-q4_1"
            for key in Store(tmp_path / "s").keys()
        )

    def test_it_estimates_time_from_stored_generations(self, prepared, tmp_path, capsys):
        prepared(tmp_path / "s", "data.limit=8")
        assert "Time: about " in self.output(prepared, tmp_path, capsys)

    def test_it_estimates_money_from_prices(self, prepared, tmp_path, capsys):
        output = self.output(
            prepared,
            tmp_path,
            capsys,
            "llm=openai",
            "llm.model=m",
            "llm.base_url=http://127.0.0.1:9/v1",
            "llm.price_prompt=3",
            "llm.price_completion=15",
        )
        words = output.replace("\n", " ").split()
        tokens = [int(words[words.index(unit) - 1].replace(",", "")) for unit in ("prompt", "completion")]
        money = float(words[words.index("Money:") + 2].strip(","))
        assert money == pytest.approx((3 * tokens[0] + 15 * tokens[1]) / 1e6, abs=0.006)

    def test_a_complete_store_needs_no_calls(self, prepared, tmp_path, capsys):
        prepared(tmp_path / "s")
        assert "0 calls to generate (nothing)" in self.output(prepared, tmp_path, capsys)

    def test_the_option_must_be_true_or_false(self, prepared, tmp_path):
        with pytest.raises(UserError, match="dry_run=yes: give true or false"):
            prepared(tmp_path / "s", dry_run="yes")


def test_a_torn_journal_of_a_dead_writer_is_taken_over_and_the_torn_line_reported(prepared, tmp_path, capsys):
    prepared(tmp_path / "s")
    stored = completions(tmp_path / "s")
    store = Store(tmp_path / "s")
    row = store.find(sorted(stored))[0]
    journal = tmp_path / "s" / f"{store.writer.split('-')[0]}-999999999-0badc0de-0badc0de.journal"
    extra = decode_row(encode_row(row).replace(row.key.encode(), b"")) or row
    line = encode_row(extra)
    journal.write_bytes(line + line[: len(line) // 2])
    capsys.readouterr()
    assert prepared(tmp_path / "s") == []
    output = " ".join(capsys.readouterr().out.split())
    assert "took over" in output and "1 torn" in output and not journal.exists()
    assert completions(tmp_path / "s") == stored


KILLED = """
import os, random, signal, sys, time
from tests.conftest import Scripted
from project.cli import prepare
from project.llm import factory as engines
from project.config.compose import load_config
folder, log, *args = sys.argv[1:]
answers = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

class Slow(Scripted):
    def generate(self, requests, seeds):
        for index, completion in super().generate(requests, seeds):
            time.sleep(0.004)
            os.write(answers, b".")
            yield index, completion

engines._engine = lambda config: Slow()
config = load_config([*args, f"store.path={folder}"])
draw = random.Random(0)
killed = 0
for attempt in range(51):
    child = os.fork()
    if not child:
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, 1), os.dup2(devnull, 2)
        prepare.run(config, {})
        os._exit(0)
    if attempt < 50:
        # The clock starts with the engine's first answer, so that kills hit generating, sealing and reading.
        size = os.fstat(answers).st_size
        deadline = time.monotonic() + draw.choice([0.3, 5])
        while os.fstat(answers).st_size == size and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(draw.uniform(0, 0.03))
        os.kill(child, signal.SIGKILL)  # an exited child is not reaped yet, so no other process has its id
    killed += os.WIFSIGNALED(os.waitpid(child, 0)[1])
print(killed)
"""


def test_fifty_kills_lose_at_most_the_requests_in_flight(prepared, args, tmp_path):
    requests = prepared(tmp_path / "single", "perturbation.rounds=16")
    process = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path / "s"), str(tmp_path / "log"), *args, "perturbation.rounds=16"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr
    kills = int(process.stdout)
    assert kills == 50  # every kill came before the work was complete
    assert completions(tmp_path / "s") == completions(tmp_path / "single")
    answered = (tmp_path / "log").stat().st_size
    # The scripted engine has one request in flight, which each kill may lose.
    assert len(requests) <= answered <= len(requests) + kills


FULL = """
import resource, signal, sys
from tests.conftest import Scripted
from project.llm import factory as engines
from project.cli.main import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
engines._engine = lambda config: Scripted()
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
sys.exit(main(["prepare", *sys.argv[2:]]))
"""


def test_a_full_disk_is_a_one_line_error_and_damages_no_generation(prepared, args, tmp_path):
    command = [sys.executable, "-c", FULL, "30000", *args, f"store.path={tmp_path / 's'}"]
    process = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert process.returncode == 2
    (error,) = [line for line in process.stderr.splitlines() if line.startswith("error")]
    assert "cannot write to the store" in error and "Traceback" not in process.stderr
    stored = completions(tmp_path / "s")
    assert 5 < len(stored)
    all_requests = prepared(tmp_path / "single")
    remaining_requests = prepared(tmp_path / "s")
    assert len(remaining_requests) < len(all_requests)
    assert completions(tmp_path / "s") == completions(tmp_path / "single")
    assert stored.items() <= completions(tmp_path / "s").items()


def test_the_key_follows_from_the_stored_prompt(prepared, tmp_path):
    prepared(tmp_path / "s")
    (shard,) = (tmp_path / "s").glob("*.parquet")
    import pyarrow.parquet as pq

    for row in pq.read_table(shard).to_pylist()[:20]:
        settings = json.loads(row["prompt"])
        settings["messages"] = tuple(map(tuple, settings["messages"]))
        assert Request(row["stage"], **settings).key(row["model"]) == row["key"]
