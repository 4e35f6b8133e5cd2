"""Requests: the store key, and the images of a message."""

import json

import numpy as np
import pytest

from project.llm.protocol import IMAGE, Completion, Request
from project.llm.store.maintenance import iter_unique_rows, verify
from project.llm.store.store import Store

RED, BLUE = (np.full((2, 3, 3), colour, np.uint8) for colour in ((255, 0, 0), (0, 0, 255)))
MESSAGES = (("system", "Look."), ("user", f"{IMAGE}\nnote"))


def request_of(**values):
    return Request("multimodal", MESSAGES, 0.0, 8, **values)


def test_the_key_of_a_request_without_images_is_unchanged():
    assert Request("summary", (("user", "x"),), 0.0, 5).key("m") == (
        "35127e812f905054e96b2a73a17c64a9759a4f7f3769d0e4be3af8a3ed85283e"
    )


def test_the_key_depends_on_image_digests_and_not_on_pixels():
    keys = {request_of(images=images).key("m") for images in ((), ("r",), ("b",), ("r", "b"), ("b", "r"))}
    assert len(keys) == 5
    assert request_of(images=("r",), pixels=(RED,)).key("m") == request_of(images=("r",)).key("m")
    assert request_of(images=("r",), pixels=(RED,)) == request_of(images=("r",), pixels=(BLUE,))
    assert "pixels" not in repr(request_of(pixels=(RED,)))


def test_only_user_messages_are_split_at_image_marks():
    messages = (("system", IMAGE), ("user", f"{IMAGE}\n{IMAGE}\na"), ("assistant", IMAGE), ("user", f"b\n{IMAGE}"))
    request = Request("multimodal", messages, 0.0, 8, images=("r", "b", "r"), pixels=(RED, BLUE, RED))
    pieces = [
        (role, ["red" if piece is RED else "blue" if piece is BLUE else piece for piece in content])
        for role, content in request.pieces()
    ]
    assert pieces == [
        ("system", [IMAGE]),
        ("user", ["red", "blue", "a"]),
        ("assistant", [IMAGE]),
        ("user", ["b\n", "red"]),
    ]


@pytest.mark.parametrize("images", [{"images": ("r", "b"), "pixels": (RED, BLUE)}, {"images": ("r",)}])
def test_a_mark_without_an_image_is_an_error(images):
    with pytest.raises(ValueError, match="1 marks"):
        request_of(**images).pieces()


def test_a_stored_request_keeps_the_digests_and_verifies(tmp_path):
    with Store(tmp_path) as store:
        store.put(request_of(images=("r",), pixels=(RED,)), "m", Completion("red", "stop", 1, 1, 1.0))
        store.put(request_of(), "m", Completion("none", "stop", 1, 1, 1.0))
    prompts = [json.loads(row.prompt) for row in iter_unique_rows(tmp_path)]
    assert [prompt.get("images") for prompt in prompts] == [["r"], None]
    assert not any("pixels" in prompt for prompt in prompts) and verify(tmp_path, 60) == ([], [])
    assert Store(tmp_path).get(request_of(images=("r",)).key("m")).completion == "red"
