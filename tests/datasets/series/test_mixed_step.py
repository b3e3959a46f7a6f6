"""Two steps in one series are an error; gaps of all kinds are not."""

import numpy as np
import pandas as pd
import pytest

from modalign.datasets.series.mixed_step import refuse_mixed
from modalign.datasets.series.series_set import SeriesSet
from modalign.zoo.errors import DataError


def joined(*stretches):
    """Times of stretches (count, step), each beginning a step of its own behind the one before."""
    times = pd.DatetimeIndex(["2015-01-01"])
    for count, step in stretches:
        times = times.append(pd.date_range(times[-1], periods=count + 1, freq=step)[1:])
    return times.to_numpy().astype("datetime64[us]")


def written(path, times):
    path.write_text("\n".join(["time,v", *(f"{time},{row % 7}" for row, time in enumerate(times))]))
    return str(path)


@pytest.mark.parametrize(
    ("stretches", "reason"),
    [
        (
            [(700, "h"), (800, "30min")],
            r"rows are one 30min apart, but from row 0 \(2015-01-01 00:00\) to row 700 \(2015-01-30 04:00\) they are one h apart; "
            r"resample the series to one step \(pandas: frame.resample\('h'\).mean\(\)\), or say --frequency 30min",
        ),
        ([(50, "h"), (200, "10min")], r"one 10min apart, but from row 0 .* to row 50 \(2015-01-03 02:00\) they are one h apart"),
        (
            [(800, "h"), (300, "30min")],
            r"rows are one h apart, but from row 800 .* to row 1100 .* one 30min apart.*--frequency 30min",
        ),
        ([(400, "h"), (30, "2h"), (400, "h")], r"from row 400 \(2015-01-17 16:00\) to row 430 .* they are one 2h apart"),
        ([(10, "h"), (12, "D")], r"rows are one D apart, but from row 0 .* to row 10 .* they are one h apart"),
        ([(60, "D"), (100, "7D")], r"rows are one 7D apart, but from row 0 .* to row 60 .* one D apart.*--frequency D"),
        (
            [(24, "MS"), (90, "D")],
            r"rows are one D apart, but from row 0 .* to row 24 \(2017-01-01 00:00\) they are one MS apart",
        ),
        ([(12, "YS"), (40, "MS")], r"rows are one MS apart, but from row 0 .* to row 12 .* YS-JAN apart"),
    ],
)
def test_a_stretch_at_a_second_step(tmp_path, stretches, reason):
    table = written(tmp_path / "mixed.csv", joined(*stretches))
    with pytest.raises(DataError, match=r"mixed.csv: two steps in one series: .*" + reason):
        SeriesSet.open(table)


def test_the_step_that_is_given_is_taken(tmp_path):
    """Then rows in between are missing on purpose."""
    found = SeriesSet.open(written(tmp_path / "t.csv", joined((50, "h"), (200, "10min"))), frequency="10min")
    assert len(found.series[0]) == 501 and np.isnan(found.series[0].values).sum() == 250


def test_the_series_is_named_and_its_rows_are_those_of_the_file(tmp_path):
    times = {"a": joined((30, "h")), "b": joined((40, "h"), (40, "2h"))}
    lines = [f"{key},{time},1" for key, own in times.items() for time in own]
    (tmp_path / "two.csv").write_text("\n".join(["unique_id,time,v", *lines]))
    with pytest.raises(DataError, match=r"two.csv: series 'b': two steps in one series: .* from row 71 .* to row 111 "):
        SeriesSet.open(str(tmp_path / "two.csv"))


def test_row_numbers(tmp_path):
    numbers = [*range(100), *range(100, 200, 2)]
    with pytest.raises(
        DataError, match=r"rows are one 1 apart, but from row 100 \(100\) to row 149 \(198\) they are one 2 apart"
    ):
        SeriesSet.open(written(tmp_path / "t.csv", numbers))


@pytest.mark.parametrize("share", [0.02, 0.2, 0.5, 0.7])
@pytest.mark.parametrize("step", ["h", "15min", "D", "MS"])
def test_rows_that_are_missing_at_random_are_no_second_step(step, share):
    times = pd.date_range("1990-01-01", periods=400, freq=step).to_numpy().astype("datetime64[us]")
    for seed in range(20):
        keep = np.flatnonzero(np.random.default_rng(seed).random(400) >= share)
        refuse_mixed(times[keep], "here", keep)


def test_gaps_that_come_again_and_again_are_none_either():
    """Opening hours, working days, a few long gaps, one row a day for a week."""
    hours = pd.date_range("2020-01-01", periods=5000, freq="h")
    days = pd.date_range("2020-01-01", periods=900, freq="D")
    long = np.r_[0:300, 700:1200, 3000:3050]
    once = hours[np.r_[0:1000, 1000 : 1000 + 24 * 7 : 24, 1168:3000]]
    for times in (
        hours[(hours.hour >= 8) & (hours.hour < 18)],
        days[days.dayofweek < 5],
        days[days.dayofweek != 6],
        hours[long],
        once,
    ):
        refuse_mixed(times.to_numpy().astype("datetime64[us]"), "here", range(len(times)))


def test_short_series_are_not_judged():
    for rows in (1, 2, 3, 8):
        refuse_mixed(joined((rows, "h"), (7, "30min")), "here", range(100))
