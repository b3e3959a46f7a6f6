"""Labelled series as samples, against plain lists."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from modalign.datasets.series.labelled import LabelledSet
from modalign.datasets.series.series_set import SeriesSet
from modalign.datasets.series.windows import Columns
from modalign.zoo.errors import DataError

CLASSES = ["cat", "dog", "owl"]
SCALE = {"a": [5.0, 2.0], "b": [0.0, 1.0], "c": [-1.0, 10.0], "d": [0.0, 1.0]}


@pytest.fixture
def series(made):
    """Three series of 12, 9 and 8 rows: a dog, a cat, a dog."""
    whole = made((12, 9, 8))
    labels = ("dog", "cat", "dog")
    return SeriesSet([replace(one, label=label) for one, label in zip(whole.series, labels, strict=True)], "made")


def samples(series, labels=CLASSES, columns=None, **more):
    return LabelledSet(series, columns or Columns(("c", "a")), SCALE, labels, look_back=8, **more)


def test_a_sample_is_the_last_rows_of_a_series(series):
    found = samples(series)
    batch = found.batch([2, 0])
    assert set(batch) == {"values", "label"} and batch["label"].tolist() == [1, 1] and found.labels.tolist() == [1, 0, 1]
    for row, number in enumerate((2, 0)):
        last = series.series[number].values.tolist()[-8:]
        wanted = [[(cells[2] + 1) / 10, (cells[0] - 5) / 2] for cells in last]
        torch.testing.assert_close(batch["values"][row], torch.tensor(wanted))
    assert [found.key(number) for number in range(len(found))] == ["s0", "s1", "s2"] and found.shard_sizes == [3]


def test_missing_values_are_zero_and_masked_or_refused(series):
    series.series[0].values[2, 0] = series.series[1].values[5, 2] = np.nan  # of the first, a row before the last 8
    found = samples(series)
    batch = found.batch([0, 1])
    assert batch["observed"].shape == (2, 8, 2) and int((~batch["observed"]).sum()) == 1
    assert not batch["observed"][1, 4, 0] and batch["values"][1, 4, 0] == 0
    with pytest.raises(DataError, match=r"made: series 's1', column 'c' has no value at row 5 .*data.series.missing is error"):
        samples(series, missing="error")
    samples(series, missing="error", columns=Columns(("a", "b")))


def test_series_that_are_shown_are_left_out(series):
    found = samples(series, without=["s0"])
    assert len(found) == 2 and found.key(0) == "s1" and found.labels.tolist() == [0, 1] and found.left_out == ["s0"]
    assert found.fingerprint != samples(series).fingerprint == samples(series).fingerprint


def test_series_that_are_no_samples(series, made):
    with pytest.raises(DataError, match=r"made: series 's1': its class 'cat' was not among those trained on; did you mean 'cut'"):
        samples(series, labels=["dog", "cut"])
    with pytest.raises(DataError, match=r"series 's0': it has no label; name the column of classes with data.series.label"):
        samples(made((12,)))
    with pytest.raises(DataError, match=r"series 's2' has 8 rows, model.look_back is 9; shorten it"):
        LabelledSet(series, Columns(("a",)), SCALE, CLASSES, look_back=9)
