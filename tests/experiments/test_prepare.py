"""prepare generates ahead: each text once, in parts, through kills and full disks, and tells the cost before."""

import json
import subprocess
import sys
import threading

import pytest

from project.config.compose import load_config
from project.errors import UserError
from project.experiments import prepare
from project.llm import factory as engines
from project.llm.protocol import Request
from project.llm.store.store import Store, line_of, row_of
from tests.conftest import Scripted


@pytest.fixture
def args(tiny_args):
    """A preparation of about two hundred texts; the store's folder is given apart."""
    return [*tiny_args, "method=ours", "alignment.style=false", "data.limit=16"]


def completions(folder):
    """Every key with what it was answered, journals included."""
    store = Store(folder)
    return {row.key: row.completion for row in store.find(sorted(store.keys()))}


@pytest.fixture
def prepared(args, monkeypatch):
    """Prepares into a folder with a scripted engine and returns the texts of the requests that it was asked."""

    def run(folder, *more, engine=None, **own):
        engine = engine or Scripted()
        monkeypatch.setattr(engines, "_engine", lambda config: engine)
        prepare.run(load_config([*args, f"store.path={folder}", *more]), own)
        return engine.asked

    return run


def test_a_second_preparation_finds_all_work_done(prepared, tmp_path, capsys):
    asked = prepared(tmp_path / "s")
    before = completions(tmp_path / "s")
    assert len(asked) == len(set(asked)) and prepared(tmp_path / "s") == []
    assert completions(tmp_path / "s") == before
    assert "0 generated" in capsys.readouterr().out


def test_one_shard_after_the_other_does_all_the_work_of_one_run(prepared, tmp_path):
    prepared(tmp_path / "whole")
    first = prepared(tmp_path / "parts", "store.takeover_seconds=0.01", shard="0/2")
    second = prepared(tmp_path / "parts", "store.takeover_seconds=0.01", shard="1/2")
    assert first and not second  # the first found no other at work, and took over
    assert completions(tmp_path / "parts") == completions(tmp_path / "whole")


def test_two_shards_side_by_side_equal_one_run_and_do_not_overlap(prepared, args, tmp_path, monkeypatch):
    prepared(tmp_path / "whole")
    halves = [Scripted(), Scripted()]
    # An engine for each thread: both run in this process.
    monkeypatch.setattr(engines, "_engine", lambda config: halves[int(threading.current_thread().name)])
    config = load_config([*args, f"store.path={tmp_path / 'parts'}", "store.takeover_seconds=30"])
    threads = [
        threading.Thread(target=prepare.run, args=(config, {"shard": f"{index}/2"}), name=str(index))
        for index in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert completions(tmp_path / "parts") == completions(tmp_path / "whole")
    described = [request for half in halves for request in half.asked]
    assert all(half.asked for half in halves) and len(described) == len(set(described))


@pytest.mark.parametrize("shard", ["2/2", "1", "a/b", "-1/2", "0/0"])
def test_a_shard_that_is_none_is_refused(prepared, tmp_path, shard):
    with pytest.raises(UserError, match="shard="):
        prepared(tmp_path / "s", shard=shard)


def test_a_condition_that_leaves_the_input_untouched_costs_nothing_again(prepared, tmp_path):
    few = prepared(tmp_path / "few", "robustness.levels=[0.5]")
    same = prepared(tmp_path / "same", "robustness.levels=[0.0,0.5]")
    assert len(same) == len(few)


class TestDryRun:
    def told(self, prepared, tmp_path, capsys, *more):
        assert prepared(tmp_path / "s", *more, dry_run="true") == []
        return capsys.readouterr().out

    def test_it_counts_by_stage_and_writes_no_generation(self, prepared, tmp_path, capsys):
        told = self.told(prepared, tmp_path, capsys)
        assert "calls to generate (" in told and " perturb, " in told and " summary)" in told
        assert "Time: unknown" in told and "data.limit=20" in told and "Money: none, the model runs here." in told
        assert all(
            Store(tmp_path / "s").find([key])[0].model != "smollm2-135m-instruct-q4_1"
            for key in Store(tmp_path / "s").keys()
        )

    def test_with_stored_generations_it_tells_time_from_their_pace(self, prepared, tmp_path, capsys):
        prepared(tmp_path / "s", "data.limit=8")
        assert "Time: about " in self.told(prepared, tmp_path, capsys)

    def test_with_a_price_it_tells_money(self, prepared, tmp_path, capsys):
        told = self.told(
            prepared,
            tmp_path,
            capsys,
            "llm=openai",
            "llm.model=m",
            "llm.base_url=http://127.0.0.1:9/v1",
            "llm.price_prompt=3",
            "llm.price_completion=15",
        )
        words = told.replace("\n", " ").split()
        tokens = [int(words[words.index(unit) - 1].replace(",", "")) for unit in ("prompt", "completion")]
        money = float(words[words.index("Money:") + 2].strip(","))
        assert money == pytest.approx((3 * tokens[0] + 15 * tokens[1]) / 1e6, abs=0.006)

    def test_when_nothing_is_missing_it_says_so(self, prepared, tmp_path, capsys):
        prepared(tmp_path / "s")
        assert "0 calls to generate (nothing)" in self.told(prepared, tmp_path, capsys)

    def test_its_answer_is_true_or_false(self, prepared, tmp_path):
        with pytest.raises(UserError, match="dry_run=yes: give true or false"):
            prepared(tmp_path / "s", dry_run="yes")


def test_a_torn_journal_of_a_dead_writer_is_taken_over_and_the_torn_line_said(prepared, tmp_path, capsys):
    prepared(tmp_path / "s")
    before = completions(tmp_path / "s")
    store = Store(tmp_path / "s")
    row = store.find(sorted(before))[0]
    journal = tmp_path / "s" / f"{store.writer.split('-')[0]}-999999999-0badc0de-0badc0de.journal"
    extra = row_of(line_of(row).replace(row.key.encode(), b"")) or row
    line = line_of(extra)
    journal.write_bytes(line + line[: len(line) // 2])
    capsys.readouterr()
    assert prepared(tmp_path / "s") == []
    told = " ".join(capsys.readouterr().out.split())
    assert "took over" in told and "1 torn" in told and not journal.exists()
    assert completions(tmp_path / "s") == before


KILLED = """
import os, random, signal, sys, time
from tests.conftest import Scripted
from project.experiments import prepare
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
done = 0
for life in range(51):
    child = os.fork()
    if not child:
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, 1), os.dup2(devnull, 2)
        prepare.run(config, {})
        os._exit(0)
    if life < 50:
        # The engine's first answer starts the clock, so that lives end in generating, sealing and reading alike.
        size = os.fstat(answers).st_size
        deadline = time.monotonic() + draw.choice([0.3, 5])
        while os.fstat(answers).st_size == size and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(draw.uniform(0, 0.03))
        os.kill(child, signal.SIGKILL)  # a child that has ended is not reaped yet, so that its number is its own
    done += os.WIFSIGNALED(os.waitpid(child, 0)[1])
print(done)
"""


def test_fifty_kills_lose_at_most_the_requests_in_flight(prepared, args, tmp_path):
    asked = prepared(tmp_path / "whole", "perturbation.rounds=16")
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path / "s"), str(tmp_path / "log"), *args, "perturbation.rounds=16"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    kills = int(done.stdout)
    assert kills == 50  # there was always work left
    assert completions(tmp_path / "s") == completions(tmp_path / "whole")
    answered = (tmp_path / "log").stat().st_size
    # The scripted engine has one request in flight: each kill may cost that one.
    assert len(asked) <= answered <= len(asked) + kills


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


def test_a_disk_that_fills_up_is_one_line_and_does_no_damage(prepared, args, tmp_path):
    command = [sys.executable, "-c", FULL, "30000", *args, f"store.path={tmp_path / 's'}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("error")]
    assert "cannot write to the store" in error and "Traceback" not in done.stderr
    kept = completions(tmp_path / "s")
    assert 5 < len(kept)
    whole = prepared(tmp_path / "whole")
    rest = prepared(tmp_path / "s")
    assert len(rest) < len(whole) and completions(tmp_path / "s") == completions(tmp_path / "whole")
    assert kept.items() <= completions(tmp_path / "s").items()


def test_the_stored_prompts_hold_the_settings_that_make_the_key(prepared, tmp_path):
    prepared(tmp_path / "s")
    (shard,) = (tmp_path / "s").glob("*.parquet")
    import pyarrow.parquet as pq

    for row in pq.read_table(shard).to_pylist()[:20]:
        settings = json.loads(row["prompt"])
        settings["messages"] = tuple(map(tuple, settings["messages"]))
        assert Request(row["stage"], **settings).key(row["model"]) == row["key"]
