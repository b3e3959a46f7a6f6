import os

import pytest

from modalign.datasets.shards import ShardSet
from modalign.datasets.shards.writer import write_shards
from modalign.zoo.errors import DataError


def test_plain_webdataset_reads_the_same(shards):
    import webdataset

    source = ShardSet(shards)
    tars = [str(source.shard_path(n)) for n in range(6)]
    plain = list(webdataset.WebDataset(tars, shardshuffle=False))
    assert [sample["__key__"] for sample in plain] == source.keys
    for number, sample in enumerate(plain):
        assert {ext: data for ext, data in sample.items() if not ext.startswith("_")} == source.read(number).members


def test_same_samples_same_bytes(tmp_path, samples):
    for name in ("a", "b"):
        write_shards(samples(20), tmp_path / name, samples_per_shard=6, source="x")
    names = sorted(os.listdir(tmp_path / "a"))
    assert names == sorted(os.listdir(tmp_path / "b")) and "shards.json" in names and len(names) == 9
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"key": "a.b"}, "field 'key' is 'a.b'"),
        ({"key": "../a"}, "field 'key'"),
        ({"key": ""}, "field 'key'"),
        ({"key": "k" * 99}, "longer than the 100 bytes"),
        ({"image": b""}, "field 'png' must be non-empty bytes"),
        ({"image_ext": "gif"}, "field 'image_ext' is 'gif'"),
        ({"captions": {}}, "field 'captions' is missing or empty"),
        ({"captions": {"en": []}}, "field 'captions.en' must be a non-empty list"),
        ({"captions": {"en": ["a", "  "]}}, "field 'captions.en' has an empty caption"),
        ({"captions": {"en": "text"}}, "field 'captions.en' must be a non-empty list"),
        ({"box": {1, 2}}, "cannot be written as JSON"),
        ({"score": float("nan")}, "cannot be written as JSON"),
    ],
)
def test_writer_refuses(tmp_path, samples, change, message):
    (sample,) = samples(1)
    with pytest.raises(DataError, match=message):
        write_shards([{**sample, **change}], tmp_path / "out")
    assert not (tmp_path / "out" / "shards.json").exists()


def test_writer_keeps_what_is_there(tmp_path, samples):
    with pytest.raises(DataError, match="'k0001': the key appears twice"):
        write_shards([*samples(3), *samples(2, start=1)], tmp_path / "half", samples_per_shard=1)
    with pytest.raises(DataError, match=r"unfinished pack \(no shards.json\): delete it"):
        write_shards(samples(3), tmp_path / "half")
    write_shards(samples(3), tmp_path / "whole")
    with pytest.raises(DataError, match="not empty, and nothing is overwritten"):
        write_shards(samples(3), tmp_path / "whole")
    with pytest.raises(DataError, match="no sample to write"):
        write_shards([], tmp_path / "none")


def test_unusual_place(tmp_path, samples):
    folder = tmp_path / "with space ü" / "片"
    write_shards(samples(3), folder)
    assert [raw.key for raw in ShardSet(folder).samples()] == ["k0000", "k0001", "k0002"]
