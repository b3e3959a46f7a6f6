"""Series to cut windows of: ETTh1 where it is, and small synthetic ones whose values tell series, row and column."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from modalign.datasets.series.config import SeriesConfig
from modalign.datasets.series.series_set import Series, SeriesSet
from modalign.datasets.series.split import borders
from modalign.datasets.series.windows import Columns, WindowSet

ROOT = Path(__file__).resolve().parents[3]
START = np.datetime64("2021-03-01T00:00", "us")


@pytest.fixture(scope="session")
def ett_facts():
    """What the protocol says of ETTh1."""
    return json.loads((ROOT / "tests/golden/time_series/ett_protocol.json").read_text())["ETTh1"]


@pytest.fixture(scope="session")
def ett():
    """ETTh1."""
    data = Path(os.environ.get("MODALIGN_DATA") or ROOT / ".." / "shared" / "data")
    path = data / "ett" / "ETTh1.csv"
    if not path.is_file():
        pytest.skip("ETTh1.csv is not in ../shared/data/ett nor in MODALIGN_DATA/ett")
    return SeriesSet.open(str(path))


def make_set(lengths=(60, 35, 90), columns=("a", "b", "c", "d"), missing=0.0, seed=0, name="made", static=()):
    """Series of some lengths; the value in series s, row r and column c is `1000 s + r + c / 10`, or missing."""
    rng, series = np.random.default_rng(seed), []
    for number, length in enumerate(lengths):
        values = 1000.0 * number + np.arange(length)[:, None] + np.arange(len(columns)) / 10
        values[rng.random(values.shape) < missing] = np.nan
        numbers = {key: float(number + place / 2) for place, key in enumerate(static)}
        series.append(Series(f"s{number}", values, tuple(columns), START, "h", numbers))
    return SeriesSet(series, name)


def cut(series, part="train", look_back=8, horizon=4, *, columns=None, scale=None, stride=1, **config):
    """A `WindowSet` with the scale [0, 1] unless told otherwise."""
    columns = Columns(series.columns) if columns is None else columns
    scale = {column: [0.0, 1.0] for column in columns.scaled} if scale is None else scale
    return WindowSet(
        series, SeriesConfig(**config), columns, scale, part=part, look_back=look_back, horizon=horizon, stride=stride
    )


def plain_windows(series, part, look_back, horizon, split, stride=1):
    """(series, first row) of every window, by going through all rows one by one."""
    found = []
    for number, one in enumerate(series.series):
        first, end = borders(one, split)[part]
        # a window belongs to a part if everything it predicts does; it may look back into the part before
        starts = [
            row
            for row in range(len(one.values))
            if row + look_back + horizon <= end
            and (row >= first if split == "none" else row + look_back >= first if first >= look_back else row >= 0)
        ]
        found += [(number, row) for row in starts[::stride]]
    return found


@pytest.fixture(scope="session")
def made():
    """`make_set`."""
    return make_set


@pytest.fixture(scope="session")
def windows():
    """`cut`."""
    return cut


@pytest.fixture(scope="session")
def oracle():
    """`plain_windows`."""
    return plain_windows
