"""Series in shards: bit for bit what went in, and nothing in a shard is trusted."""

import io
import json

import numpy as np
import pytest

from modalign.datasets.commands.check import check
from modalign.datasets.commands.show import show
from modalign.datasets.series.series_set import Series, SeriesSet
from modalign.datasets.series.stored import key_of, series_of, write_series
from modalign.datasets.shards import ShardSet
from modalign.datasets.shards.writer import write_shards
from modalign.zoo.errors import DataError


def some(count=7, seed=0):
    """Series of unequal lengths with missing values, static numbers and labels; keys that shards cannot hold as they are."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        values = rng.normal(size=(int(rng.integers(1, 50)), 3)) * 10.0 ** rng.integers(-200, 200)
        values[rng.random(values.shape) < 0.2] = np.nan
        start = np.datetime64("2019-12-31T23:45", "us") + np.timedelta64(number, "h")
        key = ["plain", "T.1", "a/b", "ü " * 60, "..", "x y", "é"][number % 7] + ("" if number < 7 else str(number))
        yield Series(key, values, ("a", "b.c", "c d"), start, "15min", {"size": float(rng.normal())}, f"class {number % 2}")


def test_round_trip_is_bit_equal(tmp_path):
    before = SeriesSet(list(some()), "before")
    write_series(before.series, tmp_path / "shards", source="test", samples_per_shard=3)
    after = SeriesSet.open(str(tmp_path / "shards"))
    assert len(ShardSet(tmp_path / "shards").shard_sizes) == 3 and after.fingerprint == before.fingerprint
    for one, other in zip(before.series, after.series, strict=True):
        assert other.values.tobytes() == one.values.tobytes() and other.values.dtype == np.float64
        for name in ("key", "columns", "start", "frequency", "static", "label"):
            assert getattr(other, name) == getattr(one, name), name
        assert np.array_equal(one.times(), other.times())
    assert (
        SeriesSet.open(str(tmp_path / "shards"), time="ds", layout="long", frequency="15min", static=["size"]).rows == after.rows
    )


def test_the_same_series_give_the_same_bytes(tmp_path):
    hashes = [[info.sha256 for info in write_series(list(some()), tmp_path / name, source="").shards] for name in "ab"]
    assert hashes[0] == hashes[1]


def test_keys():
    assert key_of("ETTh1") == "ETTh1" and key_of("x y") == "x y"
    names = ["T.1", "T_1", "T/1", "a" * 200, "a" * 201, "..", "", "T 1"]
    keys = [key_of(name) for name in names]
    assert len(set(keys)) == len(keys) and all(
        key and "." not in key and "/" not in key and len(key.encode()) <= 70 for key in keys
    )


def test_what_makes_no_set_is_not_written(tmp_path):
    one, *_ = some(1)
    with pytest.raises(DataError, match="the key appears twice"):
        write_series([one, one], tmp_path / "shards", source="")
    assert not (tmp_path / "shards").exists()


def test_shards_of_something_else_are_refused(shards):
    with pytest.raises(DataError, match=r"these shards hold 'image-text', not series; .*modalign data series"):
        SeriesSet.open(str(shards))


def test_settings_that_shards_cannot_follow_are_refused(tmp_path):
    write_series(list(some()), tmp_path / "shards", source="")
    with pytest.raises(DataError, match="the step of its rows is 15min, not h"):
        SeriesSet.open(str(tmp_path / "shards"), frequency="h")
    with pytest.raises(DataError, match=r"no static number 'siz'; did you mean 'size'\?"):
        SeriesSet.open(str(tmp_path / "shards"), static=["siz"])


GOOD = {"columns": ["a", "b"], "frequency": "h", "start": "2020-01-01T00:00:00", "static": {"s": 1}, "label": None}


def array(values=((1.0, 2.0),), dtype=np.float64):
    stream = io.BytesIO()
    np.save(stream, np.array(values, dtype=dtype))
    return stream.getvalue()


@pytest.mark.parametrize(
    ("change", "npy", "reason"),
    [
        ({"columns": ["a"]}, array(), r"the array is \(1, 2\) float64; expected \(rows, 1\)"),
        ({"columns": ["a", "a"]}, array(), "'columns' has the same name twice"),
        ({"columns": "ab"}, array(), "'columns' is not a list of names"),
        ({"columns": ["a", 1]}, array(), "'columns' is not a list of names"),
        ({}, array([1.0, 2.0]), r"the array is \(2,\)"),
        ({}, array([["1", "2"]], "U1"), "expected"),
        ({}, array(np.zeros((0, 2))), "the array has no row"),
        ({}, array([[1.0, np.inf]]), "column 'b' has an infinite value"),
        ({}, b"no array", "field 'npy': not a npy array"),
        ({"frequency": "x"}, array(), "'frequency': 'x' is no step"),
        ({"frequency": None}, array(), "'start' and 'frequency' must be texts, or both null"),
        ({"start": "soon"}, array(), "'start' is 'soon'"),
        ({"frequency": "MS", "start": "2020-01-02"}, array(), "'start' is '2020-01-02', which is no time .* on the step MS"),
        ({"static": {"s": "1"}}, array(), "'static.s' is '1'"),
        ({"static": {"s": True}}, array(), "'static.s' is True"),
        ({"static": [1]}, array(), "'static' is not a map"),
        ({"label": 3}, array(), "'name' and 'label' must be texts"),
    ],
)
def test_a_wrong_sample_is_named(tmp_path, capsys, change, npy, reason):
    sample = {"key": "k", "members": {"npy": npy}, **GOOD, **change}
    write_shards([sample], tmp_path / "shards", task="series")
    with pytest.raises(DataError, match=reason) as error:
        SeriesSet.open(str(tmp_path / "shards"))
    assert "000000.tar: sample 'k'" in str(error.value)
    with pytest.raises(DataError, match=reason):
        check(str(tmp_path / "shards"))


def test_a_sample_without_values_is_refused(tmp_path):
    with pytest.raises(DataError, match="field 'series' is missing or empty; series needs it"):
        write_shards([{"key": "k", **GOOD}], tmp_path / "shards", task="series")


def test_numbers_of_other_types_are_taken():
    one = series_of("k", np.array([[1, 2]], dtype=">i4"), GOOD)
    assert one.values.dtype == np.float64 and one.values.tolist() == [[1, 2]]
    plain = series_of("k", np.zeros((2, 2), "f4"), {"columns": ["a", "b"]})
    assert plain.frequency is None and plain.times().tolist() == [0, 1]


def test_check_and_show(tmp_path, capsys):
    write_series(list(some()), tmp_path / "shards", source="test")
    check(str(tmp_path / "shards"))
    text = capsys.readouterr().out
    assert "7 samples (series) in 1 shard" in text and "captions" not in text
    show(str(tmp_path / "shards"), out=str(tmp_path / "sheet.png"))
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("T.1: [class 1] ") and "rows x 3 (a, b.c, c d), step 15min, 2020-01-01 00:45 to" in lines[1]
    assert (tmp_path / "sheet.png").stat().st_size > 2000 and json.loads((tmp_path / "shards" / "shards.json").read_text())[
        "task"
    ] == "series"


def test_a_sketch_shows_lines_and_leaves_gaps_white():
    from modalign.datasets.series.sketch import sketch

    values = np.arange(100.0)[:, None]
    whole = np.asarray(sketch(Series("k", values, ("a",)), 100, 60))
    assert (whole != 255).any(axis=(0, 2)).sum() > 95
    values[30:70] = np.nan
    cut = (np.asarray(sketch(Series("k", values, ("a",)), 100, 60)) != 255).any(axis=(0, 2))
    assert not cut[33:67].any() and cut[2:28].all() and cut[72:97].all()
    for odd in (np.full((5, 1), np.nan), np.zeros((1, 1)), np.zeros((5, 1))):
        assert sketch(Series("k", odd, ("a",))).size == (190, 120)
