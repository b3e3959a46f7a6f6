"""Resize modes of `ImagePreprocess` step by step; against the libraries' transforms they are tested with their encoders."""

import json

import numpy as np
import pytest
from PIL import Image

from modalign.zoo.encoders.image.preprocess import ImagePreprocess

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)


def preprocess(size=8, **settings):
    return ImagePreprocess(size, MEAN, STD, "nearest", **settings)


def stripes(width, height):
    """Red tells the column, green the row."""
    picture = np.zeros((height, width, 3), dtype=np.uint8)
    picture[..., 0], picture[..., 1] = np.arange(width)[None], np.arange(height)[:, None]
    return Image.fromarray(picture)


def test_old_releases_read_new_files_where_nothing_new_is_said():
    plain = ImagePreprocess(8, MEAN, STD)
    assert set(plain.to_dict()) == {"size", "mean", "std", "interpolation", "crop_fraction"}
    new = preprocess(resize_mode="longest", fill=(1, 2, 3), resize_to=9, centre="floor")
    assert ImagePreprocess.from_dict(json.loads(json.dumps(new.to_dict()))) == new
    assert ImagePreprocess.from_dict(json.loads(json.dumps(plain.to_dict()))) == plain


def test_squash_keeps_everything():
    out = preprocess(resize_mode="squash")(stripes(16, 80)).numpy()
    assert out[0].max() - out[0].min() == 14
    assert out[1].max() - out[1].min() == 70


def test_longest_fills_beside_the_picture():
    out = preprocess(resize_mode="longest", fill=(7, 8, 9))(stripes(16, 8)).numpy()
    assert (out[:, :2] == np.array([7, 8, 9])[:, None, None]).all()
    assert (out[:, 6:] == np.array([7, 8, 9])[:, None, None]).all()
    assert (out[2, 2:6] == 0).all(), "the picture itself"


@pytest.mark.parametrize(("centre", "left"), [("round", 4), ("floor", 3)])
def test_an_odd_margin(centre, left):
    out = preprocess(8, resize_to=8, centre=centre)(stripes(15, 8)).numpy()
    assert out[0, 0, 0] == left


def test_side_to_resize_to():
    assert preprocess(8, crop_fraction=0.5).resized_side == 16
    assert preprocess(378, resize_to=384).resized_side == 384, "378 / (378 / 384) may round down to 383"


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (200, 1)])
def test_extreme_shapes(mode, shape):
    assert preprocess(resize_mode=mode)(stripes(*shape)).shape == (3, 8, 8)
