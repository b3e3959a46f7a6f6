"""Small pictures and shards for the tests of the data layer; nothing is written outside the test's own folder."""

import io
import random

import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MODALIGN_HOME", str(tmp_path / "home"))


def picture(number=0, kind="PNG", size=(12, 8)):
    """A picture that tells which number it is: its red value."""
    stream = io.BytesIO()
    Image.new("RGB", size, (number % 256, 100, 7)).save(stream, kind)
    return stream.getvalue()


def make_samples(count, start=0):
    rng = random.Random(5)
    for number in range(start, start + count):
        captions = {"en": [f"caption {number}", "other"], "de": [f"Straße {number}"]}
        yield {"key": f"k{number:04d}", "image": picture(number), "captions": captions, "group": rng.randrange(count // 3 + 1)}


@pytest.fixture
def samples():
    return make_samples


@pytest.fixture
def png():
    return picture


@pytest.fixture
def shards(tmp_path):
    """A folder of 50 samples in 6 shards (the last one is short)."""
    from modalign.datasets.shards.writer import write_shards

    write_shards(make_samples(50), tmp_path / "shards", samples_per_shard=9)
    return tmp_path / "shards"
