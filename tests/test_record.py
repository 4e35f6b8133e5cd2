"""Rows and their modalities, pixels there and back, and draws that depend on nothing but their parts."""

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from project.record import MODALITIES, Record, pixels, seeded, with_pixels

RECORD = Record("a", "a", Image.new("RGB", (2, 2), "red"), "a text", {"cell": "1"})
parts = st.lists(st.one_of(st.integers(), st.text(alphabet="aé1 \n", max_size=6)),
                 min_size=1, max_size=4)


@given(arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=6).map(lambda shape: (*shape, 3))))
def test_pixels_written_and_read_are_the_same(values):
    record = with_pixels(RECORD, values / 255)
    assert record.image.size == (values.shape[1], values.shape[0])
    assert np.array_equal(np.rint(pixels(record) * 255), values)
    assert np.array_equal(pixels(with_pixels(record, pixels(record))), pixels(record))


def test_pixels_out_of_range_are_clipped_and_the_rest_is_rounded():
    record = with_pixels(RECORD, np.array([[[-1.0, 2.0, 0.5]], [[0.0019, 0.0021, 1.0]]]))
    assert np.asarray(record.image).tolist() == [[[0, 255, 128]], [[0, 1, 255]]]


def test_with_pixels_changes_the_image_of_a_copy_alone():
    record = with_pixels(RECORD, np.zeros((1, 1, 3)))
    assert replace(record, image=RECORD.image) == RECORD
    assert RECORD.image.getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "1"])
def test_an_image_reads_alike_from_memory_and_from_a_file_in_any_mode(tmp_path, mode):
    image = Image.new("RGB", (3, 2), "white")
    image.putpixel((1, 0), (0, 0, 0))
    image = image.convert(mode)
    image.save(tmp_path / "image.png")
    from_file = pixels(replace(RECORD, image=tmp_path / "image.png"))
    assert from_file.shape == (2, 3, 3) and from_file.dtype == np.float64
    assert np.array_equal(from_file, pixels(replace(RECORD, image=image)))
    assert from_file[0, 1].tolist() == [0, 0, 0] and from_file[1, 2].tolist() == [1, 1, 1]


def test_an_unreadable_image_is_an_os_error(tmp_path):
    (tmp_path / "image.png").write_bytes(b"no image")
    with pytest.raises(OSError):
        pixels(replace(RECORD, image=tmp_path / "image.png"))


@pytest.mark.parametrize("absent", [{}, {"image": None}, {"text": None}, {"text": ""}, {"table": None}, {"table": {}},
                                    {"image": None, "text": "", "table": {}}])
def test_what_is_none_or_empty_is_not_present(absent):
    assert replace(RECORD, **absent).present == tuple(name for name in MODALITIES if name not in absent)


def test_present_follows_the_reading_order():
    assert replace(RECORD, order=("table", "image", "text")).present == ("table", "image", "text")
    assert replace(RECORD, order=("table", "image", "text"), image=None).present == ("table", "text")


@pytest.mark.parametrize("order", [(), ("image", "text"), ("image", "text", "text"), (*MODALITIES, "text"),
                                   ("image", "text", "sound")])
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
    code = "from project.record import seeded; print(seeded(1, 'noise', 'ä').random(3).tolist())"
    printed = [
        subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONHASHSEED": seed}, text=True, check=True,
                       capture_output=True).stdout.strip()
        for seed in ("1", "2")
    ]
    assert printed == [str(seeded(1, "noise", "ä").random(3).tolist())] * 2
