"""Steps between rows: inferred ones against pandas' own ranges, gaps, and what is off the grid."""

import numpy as np
import pandas as pd
import pytest

from modalign.datasets.series.frequency import _remedy, checked_frequency, fixed_step, grid, infer_frequency, positions, said
from modalign.datasets.series.series_set import SeriesSet
from modalign.zoo.errors import DataError

STEPS = {
    "s": "s",
    "250ms": "250ms",
    "15min": "15min",
    "90min": "90min",
    "60min": "h",
    "h": "h",
    "6h": "6h",
    "24h": "D",
    "D": "D",
    "3D": "3D",
    "W-TUE": "7D",
    "B": "B",
    "MS": "MS",
    "ME": "ME",
    "2MS": "2MS",
    "QS-JAN": "QS-JAN",
    "QS-OCT": "QS-JAN",
    "QS-FEB": "QS-FEB",
    "QE-DEC": "QE-DEC",
    "QE-JAN": "QE-OCT",
    "6ME": "6ME",
    "YS-JAN": "YS-JAN",
    "YS-JUL": "YS-JUL",
    "YE-DEC": "YE-DEC",
    "YE-JUN": "YE-JUN",
    "10YS-JAN": "120MS",
}


def ranged(frequency, count=40, start="2015-01-31 00:00"):
    return pd.date_range(start, periods=count, freq=frequency, unit="us").to_numpy().copy()


@pytest.mark.parametrize("frequency", STEPS)
def test_a_step_is_inferred_from_the_times_it_makes(frequency):
    times = ranged(frequency)
    found = infer_frequency(times)
    assert found == STEPS[frequency] and checked_frequency(found, "here") == found
    assert np.array_equal(grid(times[0], found, 40), times)
    assert positions(times, found, "here", range(40)).tolist() == list(range(40))


@pytest.mark.parametrize("frequency", STEPS)
def test_gaps_are_rows_that_are_not_there(frequency):
    times = ranged(frequency, 60)
    keep = np.sort(np.random.default_rng(3).choice(60, 45, replace=False))
    found = infer_frequency(times[keep])
    assert found == STEPS[frequency] and positions(times[keep], found, "here", keep).tolist() == (keep - keep[0]).tolist()


def test_two_rows_and_a_tie():
    assert infer_frequency(ranged("h", 2)) == "h" and infer_frequency(ranged("MS", 2)) == "MS"
    assert infer_frequency(ranged("30D", 2)) == "30D"  # as long as a month, but neither starts nor ends of months
    assert infer_frequency(ranged("h", 4)[[0, 1, 3]]) == "h"  # differences 1 and 2, once each


def test_working_days_need_a_weekend_to_be_told():
    assert infer_frequency(ranged("B", 5, "2020-01-06")) == infer_frequency(ranged("B", 9, "2020-01-06")) == "D"
    assert infer_frequency(ranged("B", 10, "2020-01-06")) == "B" and infer_frequency(ranged("D", 12, "2020-01-06")) == "D"


@pytest.mark.parametrize(("frequency", "moved"), [("h", "1min"), ("MS", "1D"), ("B", "2h"), ("ME", "1D"), ("QS-JAN", "31D")])
def test_one_time_off_the_step_is_named(frequency, moved):
    times = ranged(frequency, 30)
    times[17] += pd.Timedelta(moved).to_timedelta64()
    with pytest.raises(DataError, match=rf"here: the step is .*, but row 117 \({said(times[17])}.*resample"):
        positions(times, infer_frequency(np.delete(times, 17)), "here", range(100, 130))


@pytest.mark.parametrize(
    ("times", "hint"),
    [
        ([*np.delete(ranged("15min", 9), 3).tolist(), "2015-01-31T02:07"], r"frame.resample\('15min'\).mean\(\)"),
        ([f"2020-{month:02d}-15" for month in range(1, 13)], r"about a month apart.*to_period\('M'\).*the step is then MS"),
        (ranged("BME", 12), "last working days of months: say --frequency BME"),
        (ranged("BMS", 12), "first working days of months: say --frequency BMS"),
        ([f"20{year}-{month:02d}-10" for year in (20, 21) for month in (2, 5, 8, 11)], r"a quarter apart.*to_period\('Q'\)"),
        ([f"20{year}-06-10" for year in range(15, 25)], r"about a year apart.*to_period\('Y'\)"),
    ],
)
def test_what_to_do_about_a_time_off_the_step_depends_on_the_step(times, hint):
    times = np.array(times, "datetime64[us]")
    with pytest.raises(DataError, match=hint):
        positions(times, infer_frequency(times), "here", range(len(times)))
    assert "--time none" in _remedy(np.array([1, 2, 4]), "1")


def test_working_ends_of_months_are_read_as_the_hint_says():
    times = ranged("BME", 12)
    assert positions(times, "BME", "here", range(12)).tolist() == list(range(12))


def test_one_wrong_date_is_named():
    for frequency in ("h", "B"):
        times = ranged(frequency, 30, "2020-01-06")
        times[-1] += np.timedelta64(400 * 364, "D")
        with pytest.raises(DataError, match=r"the largest gap is between row 28 .* and row 29"):
            positions(times, frequency, "here", range(30))


@pytest.mark.parametrize("frequency", ["", "x", "0h", "-1D", "H2", None, "1e5h", "0.0001us"])
def test_no_step(frequency):
    with pytest.raises(DataError, match=r"here: .* is no step between rows"):
        checked_frequency(frequency, "here")


def test_lengths():
    assert fixed_step("h") == 3_600_000_000 == fixed_step("60min") and fixed_step("D") == 24 * fixed_step("h")
    assert fixed_step("MS") is None and fixed_step("B") is None and fixed_step("W-SUN") is None


def test_times_are_said_shortly():
    assert said(np.datetime64("2016-07-01T13:00:00.000000")) == "2016-07-01 13:00"
    assert said(np.datetime64("2016-07-01T13:00:05.250000")) == "2016-07-01 13:00:05.250000" and said(np.int64(7)) == "7"


def opened(tmp_path, times, **options):
    path = tmp_path / "t.csv"
    path.write_text("ds,v\n" + "".join(f"{time},{row}\n" for row, time in enumerate(times)))
    return SeriesSet.open(str(path), **options)


def test_a_set_fills_gaps_and_says_so(tmp_path):
    times = [f"2020-01-{day:02d}" for day in (1, 2, 3, 6, 7, 9)]
    found = opened(tmp_path, times)
    values = found.series[0].values[:, 0]
    assert np.array_equal(values, [0, 1, 2, np.nan, np.nan, 3, 4, np.nan, 5], equal_nan=True) and found.frequency == "D"
    assert found.notes == [
        "3 rows (33.33%) not in the table and added with missing values, the first in series 't' after row 2 "
        "(2020-01-03 00:00) (step D)"
    ]


def test_the_step_that_is_given_is_checked_and_taken(tmp_path):
    times = ranged("2h", 6)
    assert len(opened(tmp_path, times).series[0]) == 6
    hourly = opened(tmp_path, times, frequency="60min")
    assert hourly.frequency == "h" and np.isnan(hourly.series[0].values[:, 0]).sum() == 5
    assert opened(tmp_path, ["2020-03-01"], frequency="MS").series[0].future(1).tolist() == [
        np.datetime64("2020-04-01", "us").astype(object)
    ]
    with pytest.raises(DataError, match="the step is 4h, but row 1"):
        opened(tmp_path, times, frequency="4h")


def test_short_series_have_no_vote(tmp_path):
    path = tmp_path / "t.csv"
    rows = [("p", hour) for hour in (0, 1, 2, 3)] + [("q", hour) for hour in (1, 3)] + [("r", 2)]
    path.write_text("unique_id,ds,v\n" + "".join(f"{key},2020-01-01 0{hour}:00,{hour}\n" for key, hour in rows))
    found = SeriesSet.open(str(path))
    assert found.frequency == "h" and [len(one) for one in found.series] == [4, 3, 1]


def test_hours_are_counted_in_utc(tmp_path):
    hours = pd.date_range("2021-03-27", periods=60, freq="h", tz="Europe/Paris")
    found = opened(tmp_path, [time.isoformat() for time in hours])
    assert found.frequency == "h" and str(found.series[0].start)[:16] == "2021-03-26T23:00" and "kept as UTC" in found.notes[0]
