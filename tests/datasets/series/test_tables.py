"""Tables of series: wide, long, parquet, and what is refused."""

import gzip
import os
import random

import numpy as np
import pandas as pd
import pytest

from modalign.datasets.series.series_set import Series, SeriesSet
from modalign.zoo.errors import DataError

WIDE = "date,a,b\n2020-01-01 00:00,1,2\n2020-01-01 01:00,3,?\n2020-01-01 02:00,5,6.5\n"


@pytest.fixture
def table(tmp_path):
    def write(text, name="t.csv", **options):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return SeriesSet.open(str(path), **options)

    return write


def test_wide(table):
    found = table(WIDE)
    (one,) = found.series
    assert (one.key, found.columns, found.frequency, one.start) == ("t", ("a", "b"), "h", np.datetime64("2020-01-01T00:00"))
    assert np.array_equal(one.values, [[1, 2], [3, np.nan], [5, 6.5]], equal_nan=True) and one.values.dtype == np.float64
    assert [str(time)[:16] for time in one.times()] == ["2020-01-01T00:00", "2020-01-01T01:00", "2020-01-01T02:00"]
    assert str(one.future(2)[-1])[:16] == "2020-01-01T04:00" and found.notes == [] and found.rows == 3


def test_the_same_table_in_other_files(table, tmp_path):
    want = table(WIDE)
    frame = pd.DataFrame({"date": want.series[0].times(), "a": [1.0, 3, 5], "b": [2, np.nan, 6.5]})
    frame.to_parquet(tmp_path / "t.parquet")
    frame.set_index("date").to_parquet(tmp_path / "index.parquet")
    for found in (
        table(b"\xef\xbb\xbf" + WIDE.encode()),
        table(WIDE.replace("\n", "\r\n")),
        table(WIDE.replace("date,", '"date",').replace("6.5", '"6.5"')),
        table(WIDE.replace(",", "\t"), "t.tsv"),
        table(gzip.compress(WIDE.encode()), "t.csv.gz"),
        table(WIDE.replace(",", ";").replace(".", ","), delimiter=";", decimal=","),
        table(WIDE.replace("3,?", "3,") + "\n\n"),
        table(WIDE.replace("?", "-9999"), missing=["-9999"]),
        table(WIDE.replace("?", "gone"), missing=["gone"]),
        table("date,b,a,c\n2020-01-01,2,1,x\n2020-01-01 01:00,NaN,3,x\n2020-01-01 02:00,6.5,5,x\n", ignore=["c"]),
        SeriesSet.open(str(tmp_path / "t.parquet")),
        SeriesSet.open(str(tmp_path / "index.parquet")),
    ):
        (one,) = found.series
        order = [one.columns.index(name) for name in ("a", "b")]
        assert one.values[:, order].tobytes() == want.series[0].values.tobytes(), found.name
        assert np.array_equal(one.times(), want.series[0].times())


def test_a_blank_line_of_a_single_column_is_a_missing_value(table):
    assert np.array_equal(table("v\n1\n\n3\n").series[0].values[:, 0], [1, np.nan, 3], equal_nan=True)


def test_a_comma_in_quotes_does_not_make_up_for_a_short_row(table):
    with pytest.raises(DataError, match="row 1 has 2 cells, the first line 3"):
        table('date,a,c\n2020-01-01,1,"x,y"\n2020-01-02,2\n2020-01-03,2,z\n', ignore=["c"])


def test_fingerprint_is_of_the_content(table):
    first = table(WIDE)
    assert first.fingerprint == table(WIDE.replace("?", "")).fingerprint
    others = [WIDE.replace("6.5", "6.6"), WIDE.replace("a,b", "a,c"), WIDE.replace("2020", "2021"), WIDE.replace("?", "0")]
    assert len({first.fingerprint, *(table(text).fingerprint for text in others)}) == 5


def test_numbers_are_read_to_the_last_bit(table):
    rng = random.Random(0)
    values = [rng.uniform(-1, 1) * 10.0 ** rng.randint(-300, 300) for _ in range(2000)]
    found = table("v\n" + "\n".join(map(repr, values)) + "\n")
    assert found.series[0].values[:, 0].tolist() == values
    mixed = table("v\n" + "\n".join(map(repr, values)) + "\n gone \n", missing=["gone"])  # the way of columns with texts
    assert mixed.series[0].values[:-1, 0].tolist() == values and np.isnan(mixed.series[0].values[-1, 0])


def test_many_series_in_a_wide_table(table):
    text = "ds,unique_id,v,kind,size\n" + "".join(
        f"2020-01-0{day},{key},{day}{number},{kind},{number}\n"
        for day in (1, 2, 3)
        for number, (key, kind) in enumerate([("T.1", "x"), ("007", "y")], start=1)
    )
    found = table(text, label="kind", static=["size"])
    assert [one.key for one in found.series] == ["T.1", "007"] and found.columns == ("v",) and found.frequency == "D"
    assert [one.values[:, 0].tolist() for one in found.series] == [[11, 21, 31], [12, 22, 32]]
    assert [(one.label, dict(one.static)) for one in found.series] == [("x", {"size": 1.0}), ("y", {"size": 2.0})]
    assert found.labels == ["x", "y"] and found.static == ("size",)
    assert table(text.replace("unique_id", "who"), id="who", label="kind", static=["size"]).fingerprint == found.fingerprint


def test_long_is_pivoted(table):
    text = "unique_id,ds,variable,value\n"
    want = {}
    rng = random.Random(1)
    rows = [
        (key, day, name) for key in ("p", "q") for name in ("a", "b") for day in range(1, 7) if rng.random() < 0.8 or day == 1
    ]
    for key, day, name in rows:
        want[key, day, name] = rng.random()
        text += f"{key},2020-02-0{day},{name},{want[key, day, name]!r}\n"
    for found in (
        table(text, layout="long"),
        table(text.replace("variable,value", "which,how"), layout="long", variable="which", value="how"),
    ):
        assert found.columns == ("a", "b") and [one.key for one in found.series] == ["p", "q"] and found.frequency == "D"
        seen = {
            (one.key, int(str(time)[8:10]), name): one.values[row, place]
            for one in found.series
            for row, time in enumerate(one.times())
            for place, name in enumerate(one.columns)
            if not np.isnan(one.values[row, place])
        }
        assert seen == want


def test_long_with_one_channel_and_without_times(table):
    assert table("unique_id,ds,y\np,2020-01-01,1\np,2020-01-02,2\np,2020-01-03,4\n", layout="long").columns == ("y",)
    found = table("variable,value\na,1\nb,2\na,3\nb,4\n", layout="long", time="none")
    assert found.series[0].values.tolist() == [[1, 2], [3, 4]] and found.frequency is None


def test_rows_without_time(table):
    found = table("a,b\n1,2\n3,4\n")
    assert found.frequency is None and found.series[0].times().tolist() == [0, 1] and found.series[0].future(2).tolist() == [2, 3]
    assert "rows have no time" in found.notes[0]
    assert table("time,a\n0.1,5\n0.2,6\n", time="none").columns == ("time", "a")


def test_row_numbers_are_times_without_a_clock(table):
    found = table("t,v\n5,1\n6,2\n8,3\n", time="t")
    assert found.series[0].values[:, 0].tolist()[:2] == [1, 2] and len(found.series[0]) == 4 and found.frequency is None
    assert "1 row (" in found.notes[0] and "after row 1 (6)" in found.notes[0]


def test_a_time_column_without_the_name_of_one_is_found(table):
    assert table("when,v\n2020-01-01,1\n2020-01-02,2\n2020-01-03,2\n").columns == ("v",)
    index = pd.DataFrame({"v": [1.0, 2, 3]}, index=pd.date_range("2020", periods=3, freq="MS")).to_csv()
    assert index.startswith(",v") and table(index).frequency == "MS"


def test_text_of_yes_and_no_is_a_covariate(table):
    assert table("ds,holiday\n2020-01-01,True\n2020-01-02,False\n").series[0].values[:, 0].tolist() == [1, 0]


DAYS = "ds,v\n2020-01-01,1\n2020-01-02,2\n2020-01-03,3\n"


@pytest.mark.parametrize(
    ("text", "options", "reason"),
    [
        (
            WIDE.replace("5,6.5", "5,hot"),
            {},
            r"row 2, column 'b' is 'hot', which is no number; leave the column out with --ignore 'b'",
        ),
        (WIDE.replace("5,6.5", "5,inf"), {}, r"row 2, column 'b' is infinite"),
        (WIDE.replace("5,6.5", '5,"6,5"'), {}, r"column 'b' is '6,5', which is no number; if the comma is the decimal mark"),
        (WIDE.replace("5,6.5", "5,6_5"), {}, "'6_5', which is no number"),
        (WIDE.replace("5,6.5", "5"), {}, "row 2 has 2 cells, the first line 3"),
        (WIDE.replace("5,6.5", "5,6,5"), {}, "row 2 has 4 cells, the first line 3"),
        (WIDE.replace("date,a,b", "date,a"), {}, "row 0 has 3 cells, the first line 2"),
        (WIDE.replace("3,?", "3").replace("5,6.5", "5,6,5"), {}, "row 1 has 2 cells"),  # as many commas as a good table
        (WIDE.replace("a,b", "a,a"), {}, "two columns are called 'a'"),
        (WIDE.replace(",", "|"), {}, r"no ',' in the first line, but '\|'; say --delimiter '\|'"),
        (WIDE, {"delimiter": ";"}, "no ';' in the first line, but ','; say --delimiter ','"),
        ("1.5,2\n3,4\n", {}, "the first line has numbers only"),
        ("date,a\n", {}, "there is no row in it"),
        ("", {}, "the file is empty"),
        (b"date,a\n2020,\xff\n", {}, "not UTF-8 text"),
        (b"date,a\n2020,\0\n", {}, "no text"),
        (",date,a\n0,2020-01-01,1\n1,2020-01-02,2\n", {}, r"column 0 \(the first is 0\) has no name.*--ignore 'Unnamed: 0'"),
        ("date\n2020-01-01\n", {}, "no column of values"),
        (WIDE, {"time": "dat"}, r"no column 'dat'; did you mean 'date'\?"),
        (WIDE, {"static": ["size"]}, "no column 'size'"),
        (WIDE, {"time": "a", "id": "a"}, "column 'a' has two roles"),
        (WIDE, {"layout": "tall"}, "layout is 'tall'"),
        (WIDE, {"variable": "a"}, "say --layout long"),
        (WIDE.replace("a,b", "time,b"), {}, "'date' and 'time' could all be the time; say which with --time"),
        ("x,y,v\n2020-01-01,2020-01-01,1\n2020-01-02,2020-01-02,2\n", {}, "'x' and 'y' both look like times"),
        ("ds,v\n2020-01-01,1\n2020-01-01,2\n2020-01-02,3\n", {}, r"rows 0 and 1 have the same time 2020-01-01 00:00.*with --id"),
        ("ds,v\n2020-01-01,1\n2020-01-03,2\n2020-01-02,3\n", {}, r"row 2 \(2020-01-02 00:00\) comes before row 1 .*sort"),
        ("ds,v\n2020-01-01,1\n2020-01-03,2\n2020-01-02,3\n2020-01-01,3\n", {}, "rows 0 and 3 have the same time"),
        ("ds,v\n2020-01-01,1\n,2\n", {}, r"row 1 has no time \(column 'ds'\)"),
        (DAYS.replace("-03", "-03 07:00"), {}, r"the step is D, but row 2 \(2020-01-03 07:00\) .*resample"),
        (DAYS.replace("2020-01-03", "2920-01-03"), {}, r"3 rows would be spread over about 3287\d\d; .* row 2 \(2920"),
        (DAYS, {"frequency": "h2"}, "'h2' is no step between rows"),
        (DAYS, {"frequency": "2D"}, r"the step is 2D, but row 1 \(2020-01-02 00:00\)"),
        (DAYS, {"frequency": "MS"}, "the step is MS, but row 1"),
        (DAYS, {"frequency": "W-MON"}, r"row 0 \(2020-01-01 00:00\) is not on the step W-MON"),
        ("v\n1\n2\n", {"frequency": "h"}, "the rows have no time; name the column of times"),
        ("ds,v\n2020-01-01,1\n", {}, "no series has two rows.*--frequency"),
        ("unique_id,ds,v\np,2020-01-01,1\n,2020-01-02,1\n", {}, r"row 1 does not say which series"),
        (
            "unique_id,ds,v\n"
            + "".join(f"p,2020-01-0{day},1\n" for day in (1, 2, 3))
            + "".join(f"q,2020-01-01 0{hour}:00,1\n" for hour in (1, 2, 3)),
            {},
            "series 'p' has the step D, series 'q' the step h",
        ),
        ("unique_id,ds,v\np,2020-01-01,1\nq,2020-01-01,1\np,2020-01-01,1\n", {}, "series 'p': rows 0 and 2 have the same time"),
        (
            "unique_id,ds,v,k\np,2020-01-01,1,x\np,2020-01-02,1,y\n",
            {"label": "k"},
            r"series 'p': the label .* found \['x', 'y'\]",
        ),
        (
            "unique_id,ds,v,k\np,2020-01-01,1,1\np,2020-01-02,1,2\n",
            {"static": ["k"]},
            r"static column 'k' changes within it \(1, 2",
        ),
        ("unique_id,ds,v,k\np,2020-01-01,1,1\np,2020-01-02,1,\n", {"static": ["k"]}, "static column 'k' is missing in it"),
        (DAYS, {"layout": "long"}, "none is called 'value', 'y', 'target'; name it with --value"),
        ("ds,variable,value,more\n2020-01-01,a,1,2\n", {"layout": "long"}, "column 'more' of this long table has no role"),
        (
            "ds,id,variable,value\n2020-01-01,p,a,1\n2020-01-01,q,b,1\n",
            {"layout": "long"},
            "series 'p': it has no row of channel 'b'",
        ),
        ("ds,variable,value\n2020-01-01,a,1\n2020-01-01,,1\n", {"layout": "long"}, "row 1 does not say which channel"),
        (
            "ds,variable,value\n2020-01-01,a,1\n2020-01-01,a,1\n",
            {"layout": "long"},
            "column 'a': rows 0 and 1 have the same time",
        ),
        ("variable,value\na,1\nb,2\na,3\n", {"layout": "long"}, "channel 'b' has 1 rows, 'a' has 2, and without times"),
        ("when,v\n2020-01-01,1\nyesterday,2\n", {}, "row 1, column 'when' is 'yesterday', which cannot be read as a time"),
    ],
)
def test_what_is_refused(table, text, options, reason):
    with pytest.raises(DataError, match=reason) as error:
        table(text, **options)
    assert "t.csv" in str(error.value) or "layout" in str(error.value)


def test_other_files_are_refused(table, tmp_path, monkeypatch):
    with pytest.raises(DataError, match="no such file"):
        SeriesSet.open(str(tmp_path / "none.csv"))
    with pytest.raises(DataError, match="the scheme 'https' is refused"):
        SeriesSet.open("https://example.org/t.csv")
    with pytest.raises(DataError, match="cannot be read as parquet"):
        table(b"PAR1 not", "t.parquet")
    with pytest.raises(DataError, match="cannot be read"):
        table(b"no gzip", "t.csv.gz")
    with pytest.raises(DataError, match="cannot be read"):
        table(gzip.compress(WIDE.encode())[:-12], "t.csv.gz")
    monkeypatch.setattr(pd, "read_parquet", lambda *_, **__: (_ for _ in ()).throw(ImportError("pyarrow")))
    with pytest.raises(DataError, match="modalign\\[parquet\\]"):
        table(b"PAR1", "t.parquet")


def test_series_of_a_set_are_alike():
    one = Series("p", np.zeros((2, 2)), ("a", "b"), np.datetime64("2020-01-01", "us"), "h", {"s": 1.0}, "x")
    same = {"columns": ("a", "b"), "start": one.start, "frequency": "h", "static": {"s": 2.0}, "label": "y"}
    assert len(SeriesSet([one, Series("q", np.ones((3, 2)), **same)], "set")) == 2
    for change, reason in (
        ({"columns": ("a", "c")}, "series 'q': it has no column 'b', which series 'p' has"),
        ({"columns": ("b", "a")}, r"its columns are in another order \(b, a\)"),
        ({"columns": ("a", "b", "c")}, "it has a column 'c', which series 'p' has not"),
        ({"frequency": "D"}, "its step is D, that of series 'p' is h"),
        ({"static": {}}, "the static number 's'"),
        ({"label": None}, "it has no label"),
    ):
        with pytest.raises(DataError, match=reason):
            SeriesSet([one, Series("q", np.ones((3, 3)), **{**same, **change})], "set")
    with pytest.raises(DataError, match="the key appears twice"):
        SeriesSet([one, one], "set")
    with pytest.raises(DataError, match="no series"):
        SeriesSet([], "set")


def test_a_relative_path_and_capitals(tmp_path, monkeypatch):
    (tmp_path / "My Data.CSV").write_text(WIDE)
    monkeypatch.chdir(tmp_path)
    assert (
        SeriesSet.open("My Data.CSV").series[0].key == "My Data" == SeriesSet.open(os.path.join(".", "My Data.CSV")).series[0].key
    )
