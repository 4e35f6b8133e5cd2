"""The benchmarks run, print JSON with their ratios, and tell a missed bar by their exit code."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "benchmarks"


def ran(script, *args):
    done = subprocess.run([sys.executable, FOLDER / script, *args], capture_output=True, text=True)
    return done.returncode, json.loads(done.stdout[done.stdout.index("{") :])


def test_the_store_benchmark_compares_with_a_dict_of_all_rows():
    code, report = ran("store.py", "rows=500")
    figures = report["rows"]["500"]
    assert code == 0 and figures["store"]["keys_per_second"] > 0 and figures["ratio"]["open"] > 0


def test_the_data_benchmark_compares_with_reading_everything_at_once():
    code, report = ran("data.py", "rows=300", "avito=600,1200")
    assert code == 0 and report["table"]["ratio"] > 0 and report["images"]["decodings_per_file"] == 1
    figures = report["memory"]["rows"]["1200"]
    assert figures["source"]["rows_kept"] > 300 and set(report["memory"]["ratio"]) == {"source", "rival"}


def test_a_missed_bar_is_exit_code_1_with_check_alone(tmp_path):
    # Imported with a bar that no machine reaches.
    code = f"""
import sys
sys.path.insert(0, {str(FOLDER)!r})
import store
store.BARS["open_seconds"] = 0.0
sys.argv[0] = store.__file__
print(store.main(["rows=500"]), store.main(["rows=500", "--check"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "0 1", done.stderr


@pytest.mark.slow
def test_the_generation_benchmark_compares_three_ways_of_asking():
    _, report = ran("generation.py", "engines=transformers")
    figures = report["engines"]["transformers"]
    assert set(figures["seconds"]) == {"stage", "best", "one_by_one"} and figures["one_by_one/stage"] > 1


@pytest.mark.slow
def test_the_training_benchmark_compares_with_transformers_trainer():
    _, report = ran("training.py", "rows=64", "rounds=1")
    training = report["training"]
    assert training["ours"]["steps"] == training["default"]["steps"] == training["grouped"]["steps"]
    assert training["speed_default"] > 0 and training["memory"] > 0
    assert report["processes"]["efficiency"] > 0 and report["resume"]["ratio"] > 0


@pytest.mark.slow
def test_the_evaluation_benchmark_compares_with_re_running_every_stage():
    code, report = ran("evaluation.py", "rows=3", "seeds=3")
    assert code == 0 and report["answers"]["equal"] and report["answers"]["compared"] == 9 * report["conditions"]
    assert report["ratio"]["language_model"] < 0.4 and report["ratio"]["together"] < 0.6


@pytest.mark.slow
def test_the_gpu_benchmark_runs_each_section_on_tiny_models():
    done = subprocess.run(
        [sys.executable, FOLDER / "gpu.py", "--small", "--minutes", "30"], capture_output=True, text=True
    )
    device, *sections, bars = map(json.loads, done.stdout.splitlines())
    assert device["device"] == "cpu" and len(sections) == 6
    assert not [line["section"] for line in sections if not line["ok"]], done.stderr
    assert "bf16_over_float32" in bars["bars"]


def test_the_gpu_benchmark_reports_sections_for_which_no_time_is_left():
    args = ["--small", "--minutes", "0", "--sections", "captioners,compile"]
    done = subprocess.run([sys.executable, FOLDER / "gpu.py", *args], capture_output=True, text=True)
    sections = [json.loads(line) for line in done.stdout.splitlines()[1:-1]]
    assert done.returncode == 1 and [line["section"] for line in sections] == ["captioners", "compile"]
    assert all(line["error"] == "not run: 0.0 minutes are over" for line in sections)
