"""Pictures in memory, in a file and in a zip give the same pixels; changed pixels are clipped and rounded."""

import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from project.data.images import ZippedImage, digest, map_pictures, pictures, pixels

shapes = array_shapes(min_dims=2, max_dims=2, max_side=6).map(lambda shape: (*shape, 3))


@given(arrays(np.uint8, shapes))
def test_the_identity_keeps_the_pixels(values):
    assert np.array_equal(pixels(map_pictures(lambda scaled: scaled, Image.fromarray(values))), values)


def test_pixels_out_of_range_are_clipped_and_the_rest_is_rounded():
    changed = np.array([[[-1.0, 2.0, 0.5]], [[0.0019, 0.0021, 1.0]]])
    picture = map_pictures(lambda values: changed, Image.new("RGB", (1, 2)))
    assert np.asarray(picture).tolist() == [[[0, 255, 128]], [[0, 1, 255]]]


def test_map_pictures_does_not_modify_the_picture():
    picture = Image.new("RGB", (2, 2), "red")
    map_pictures(lambda values: 0 * values, picture)
    assert picture.getpixel((0, 0)) == (255, 0, 0)


def test_map_pictures_changes_every_picture_except_ready_descriptions():
    white, words = map_pictures(lambda values: values + 1, (Image.new("RGB", (1, 1)), "It shows a cat."))
    assert pixels(white).tolist() == [[[255, 255, 255]]] and words == "It shows a cat."
    assert pictures((white, words)) == (white, words) and pictures(words) == (words,)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "1"])
def test_memory_file_and_zip_give_the_same_pixels_in_every_mode(tmp_path, mode):
    image = Image.new("RGB", (3, 2), "white")
    image.putpixel((1, 0), (0, 0, 0))
    image = image.convert(mode)
    image.save(tmp_path / "image.png")
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        archive.write(tmp_path / "image.png", "folder/image.png")
    from_file = pixels(tmp_path / "image.png")
    assert from_file.shape == (2, 3, 3) and from_file.dtype == np.uint8
    assert from_file[0, 1].tolist() == [0, 0, 0] and from_file[1, 2].tolist() == [255, 255, 255]
    for source in (image, ZippedImage(tmp_path / "images.zip", "folder/image.png")):
        assert digest(pixels(source)) == digest(from_file)


def test_the_digest_depends_on_content_and_shape():
    blank = np.zeros((2, 3, 3), np.uint8)
    assert len({digest(blank), digest(blank + 1), digest(blank.reshape(3, 2, 3))}) == 3


def test_an_unreadable_image_raises_os_error_and_a_missing_member_key_error(tmp_path):
    (tmp_path / "image.png").write_bytes(b"no image")
    with pytest.raises(OSError):
        pixels(tmp_path / "image.png")
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        archive.write(tmp_path / "image.png", "image.png")
    with pytest.raises(OSError):
        pixels(ZippedImage(tmp_path / "images.zip", "image.png"))
    with pytest.raises(KeyError):
        pixels(ZippedImage(tmp_path / "images.zip", "other.png"))
