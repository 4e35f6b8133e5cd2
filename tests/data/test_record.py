"""Records and their modalities, and random draws that depend only on the parts of their seed."""

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
def test_a_modality_that_is_none_or_empty_is_absent(absent):
    assert replace(RECORD, **absent).present == tuple(name for name in MODALITIES if name not in absent)


def test_present_modalities_are_in_reading_order():
    assert replace(RECORD, order=("table", "image", "text")).present == ("table", "image", "text")
    assert replace(RECORD, order=("table", "image", "text"), image=None).present == ("table", "text")


@pytest.mark.parametrize(
    "order", [(), ("image", "text"), ("image", "text", "text"), (*MODALITIES, "text"), ("image", "text", "sound")]
)
def test_an_order_must_be_a_permutation_of_the_modalities(order):
    with pytest.raises(ValueError, match="record a: order"):
        replace(RECORD, order=order)


@given(parts)
def test_equal_parts_give_equal_draws(parts):
    assert seeded(*parts).random(4).tolist() == seeded(*parts).random(4).tolist()


@given(parts, parts)
def test_different_parts_give_different_draws(first, second):
    are_equal = list(map(str, first)) == list(map(str, second))
    assert (seeded(*first).random(4).tolist() == seeded(*second).random(4).tolist()) == are_equal


def test_draws_do_not_depend_on_the_process_and_its_hash_seed():
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
