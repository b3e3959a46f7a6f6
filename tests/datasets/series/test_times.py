"""Columns as times: how they may be written, and what is ambiguous."""

import numpy as np
import pandas as pd
import pytest

from modalign.datasets.series.times import looks_like_times, parse_times
from modalign.zoo.errors import DataError


def parsed(texts, time_format=None):
    return parse_times(pd.Series(texts, name="ds"), "t.csv", time_format)


@pytest.mark.parametrize(
    ("texts", "time_format"),
    [
        (["2020-03-04 05:06", "2020-03-13 00:00"], None),
        (["2020-03-04T05:06:00", "2020-03-13"], None),
        (["2020/03/04 05:06", "2020/03/13 00:00"], None),
        (["04/03/2020 05:06", "13/03/2020 00:00"], None),
        (["03/04/2020 05:06:00", "03/13/2020 00:00:00"], None),
        (["04.03.2020 05:06", "13.03.2020 00:00"], None),
        (["4-Mar-20 05:06", "13-Mar-20 00:00"], None),
        (["Mar 4, 2020 05:06 AM", "Mar 13, 2020 12:00 AM"], None),
        (["03/04/2020 5:06 AM", "03/13/2020 12:00 AM"], None),
        (["03/04/2020 05:06", "03/13/2020 00:00"], "%m/%d/%Y %H:%M"),
        (["1583298360", "1584057600"], "s"),
        (["1583298360000", "1584057600000"], "ms"),
        (["202003040506", "202003130000"], "%Y%m%d%H%M"),
        (["2020-03-04 05:06+00:00", "2020-03-13 00:00+00:00"], None),
        (["2020-03-04 07:06+02:00", "2020-03-13 01:00+01:00"], None),
        (["2020-03-04T05:06:00Z", "2020-03-13T00:00:00Z"], None),
    ],
)
def test_the_same_two_times(texts, time_format):
    times, zone = parsed(texts, time_format)
    assert times.dtype == "datetime64[us]"
    assert times.tolist() == np.array(["2020-03-04T05:06", "2020-03-13T00:00"], "datetime64[us]").tolist()
    zoned = any(mark in texts[0] for mark in ("+", "Z"))
    assert (zone is not None) == zoned


def test_columns_of_parquet():
    want = np.array(["2020-03-04T05:06", "2020-03-13T00:00"], "datetime64[us]")
    plain = pd.Series(want, name="ds")
    for column in (
        plain,
        plain.astype("datetime64[ns]"),
        plain.dt.tz_localize("UTC").dt.tz_convert("Asia/Tokyo"),
        plain.astype(object),
    ):
        assert parse_times(column, "t")[0].tolist() == want.tolist()
    days = pd.Series([pd.Timestamp("2020-03-04").date(), pd.Timestamp("2020-03-05").date()], name="ds")
    assert parse_times(days, "t")[0].astype("datetime64[D]").tolist() == days.tolist()


def test_history_and_whole_numbers():
    assert str(parsed(["1749-01", "1749-02"])[0][0])[:10] == "1749-01-01"
    assert parsed(["0", "1", "17419"])[0].tolist() == [0, 1, 17419]
    assert parse_times(pd.Series([3, 4], name="ds"), "t")[0].tolist() == [3, 4]
    assert str(parsed(["1950", "1951"], "%Y")[0][1])[:10] == "1951-01-01"


@pytest.mark.parametrize(
    ("texts", "time_format", "reason"),
    [
        (["03/04/2020", "04/04/2020"], None, r"day first or the month first \('03/04/2020'\); say --time_format '%d/%m/%Y' or"),
        (["2020-01-01", "2020-13-01"], None, "row 1, column 'ds' is '2020-13-01', which cannot be read as a time"),
        (["13/01/2020", "01/13/2020"], None, "cannot be read as a time like the others"),
        (["soon", "later"], None, "row 0, column 'ds' is 'soon'"),
        (["2020-01-01", ""], None, "row 1 has no time"),
        (["2020-01-01", None], None, "row 1 has no time"),
        (["2020-01-01 00:00Z", "2020-01-01 01:00"], None, r"row 1 \('2020-01-01 01:00', column 'ds'\) has no time zone"),
        (["1950", "1951"], None, "may be years or row numbers; say --time_format %Y"),
        (["20200101", "20200102"], None, "may be dates or row numbers; say --time_format %Y%m%d"),
        (["202001", "202002"], None, "may be months"),
        (["1583298360", "1583298420"], None, "may be Unix times .* say --time_format s, ms, us or ns"),
        (["9" * 30, "1"], None, "neither whole row numbers nor dates"),
        (
            ["2020-01-01", "2020-01-02"],
            "%d/%m/%Y",
            "row 0, column 'ds' is '2020-01-01', which is not a time written as '%d/%m/%Y'",
        ),
        (["x", "1"], "s", "row 0, column 'ds' is 'x', which is not a number of s"),
        (["9" * 30, "1"], "s", "cannot be read as times"),
        (["2020-01-01", "2020-01-02"], "%Q", "cannot be read as times"),
        (["2020-01-01 00:00:00.0000001", "2020-01-02 00:00:00"], None, "row 0, column 'ds': times finer than a microsecond"),
    ],
)
def test_what_is_refused(texts, time_format, reason):
    with pytest.raises(DataError, match=reason):
        parsed(texts, time_format)


def test_numbers_with_parts_are_no_times():
    with pytest.raises(DataError, match="--time none"):
        parse_times(pd.Series([0.1, 0.2], name="time"), "t")


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        ("2020-01-01", True),
        ("2020/1/1 3:00", True),
        ("1.2.2020", True),
        ("5-Jan-09", True),
        ("1.5", False),
        ("NW", False),
        ("2020", False),
        ("", False),
    ],
)
def test_what_looks_like_a_time(first, expected):
    assert looks_like_times(pd.Series([first, "x"])) is expected
    assert not looks_like_times(pd.Series([1.0, 2.0]))
