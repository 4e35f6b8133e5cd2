"""Rows and their modalities, and draws that depend on nothing but their parts."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from project.data.record import MODALITIES, Record, seeded

RECORD = Record("a", "a", Image.new("RGB", (2, 2), "red"), "a text", {"cell": "1"})
parts = st.lists(st.one_of(st.integers(), st.text(alphabet="aé1 \n", max_size=6)), min_size=1, max_size=4)


@pytest.mark.parametrize(
    "absent",
    [
        {},
        {"image": None},
        {"text": None},
        {"text": ""},
        {"table": None},
        {"table": {}},
        {"table": {"cell": None}},
        {"image": None, "text": "", "table": {}},
    ],
)
def test_what_is_none_or_empty_is_not_present(absent):
    assert replace(RECORD, **absent).present == tuple(name for name in MODALITIES if name not in absent)


def test_present_follows_the_reading_order():
    assert replace(RECORD, order=("table", "image", "text")).present == ("table", "image", "text")
    assert replace(RECORD, order=("table", "image", "text"), image=None).present == ("table", "text")


@pytest.mark.parametrize(
    "order", [(), ("image", "text"), ("image", "text", "text"), (*MODALITIES, "text"), ("image", "text", "sound")]
)
def test_an_order_that_is_no_permutation_is_refused(order):
    with pytest.raises(ValueError, match="record a: order"):
        replace(RECORD, order=order)


@given(parts)
def test_equal_parts_draw_equally(parts):
    assert seeded(*parts).random(4).tolist() == seeded(*parts).random(4).tolist()


@given(parts, parts)
def test_other_parts_draw_otherwise(one, other):
    same = list(map(str, one)) == list(map(str, other))
    assert (seeded(*one).random(4).tolist() == seeded(*other).random(4).tolist()) == same


def test_draws_are_equal_in_another_process_whatever_its_hash_seed():
    code = "from project.data.record import seeded; print(seeded(1, 'noise', 'ä').random(3).tolist())"
    printed = [
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed},
            text=True,
            check=True,
            capture_output=True,
        ).stdout.strip()
        for seed in ("1", "2")
    ]
    assert printed == [str(seeded(1, "noise", "ä").random(3).tolist())] * 2
