"""Whatever a table holds, it is read or refused with a sentence; what is read is well formed and survives shards bit for bit."""

import io

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modalign.datasets.decoding.table import decode_array, decode_json
from modalign.datasets.series.series_set import SeriesSet
from modalign.datasets.series.stored import sample_of, series_of
from modalign.datasets.shards.writer import sample_members
from modalign.zoo.errors import DataError

CELLS = st.one_of(
    st.sampled_from(
        ["", "1", "-2.5", "1e3", "NaN", "?", "x", "inf", "1,5", "1_0", " 7 ", "2020-01-01", "2020-01-02 03:00", "03/04/2020"]
    ),
    st.sampled_from(
        ["2020-01-01T00:00Z", "0", "1e999", "9" * 30, '"a"', "'", "\n", "True", "20200101", "1900", "é", "0x1", "--", "2020"]
    ),
    st.text(max_size=6),
)
NAMES = st.one_of(
    st.sampled_from(["date", "ds", "Time", "y", "unique_id", "variable", "value", "a", "b", "label", "", "0", "1"]),
    st.text(max_size=4),
)


@st.composite
def tables(draw):
    names = draw(st.lists(NAMES, min_size=1, max_size=4))
    width = st.integers(max(0, len(names) - 1), len(names) + 1) if draw(st.integers(0, 5)) == 0 else st.just(len(names))
    column = [
        draw(st.sampled_from([CELLS, st.sampled_from(["1", "2.5", ""]), st.sampled_from(["2020-01-01", "2020-01-02"])]))
        for _ in names
    ]
    rows = [[draw(column[min(place, len(names) - 1)]) for place in range(draw(width))] for _ in range(draw(st.integers(0, 6)))]
    quote = draw(st.booleans())
    cell = (lambda text: '"' + text.replace('"', '""') + '"') if quote else str
    return "\n".join(",".join(map(cell, row)) for row in [names, *rows]) + draw(st.sampled_from(["", "\n", "\r\n", "\n\n"]))


@st.composite
def good_tables(draw):
    """Tables with rising times and numbers, with gaps and missing cells."""
    step = draw(st.sampled_from(["h", "15min", "D", "s"]))
    count = draw(st.integers(3, 12))
    keep = sorted(draw(st.sets(st.integers(0, count), min_size=3, max_size=count)))
    times = np.datetime64("2020-02-27T22:00", "us") + np.array(keep) * np.timedelta64(
        {"h": 3600, "15min": 900, "D": 86400, "s": 1}[step], "s"
    )
    number = st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.integers(-5, 5)).map(repr)
    rows = [f"{time},{draw(number)},{draw(st.one_of(number, st.just('')))}" for time in times]
    return "ds,a,b\n" + "\n".join(rows) + "\n"


OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "layout": st.sampled_from(["wide", "long"]),
        "time": st.sampled_from(["date", "ds", "a", "none"]),
        "id": st.sampled_from(["unique_id", "a"]),
        "label": st.sampled_from(["label", "b"]),
        "static": st.sampled_from([["a"], ["b"]]),
        "ignore": st.sampled_from([["a"], ["y"]]),
        "frequency": st.sampled_from(["h", "D", "MS", "B", "x", "-1h", ""]),
        "missing": st.sampled_from([["x"], ["1"]]),
        "time_format": st.sampled_from(["%Y-%m-%d", "s", "ns", "%", "%Q"]),
        "delimiter": st.sampled_from([";", ","]),
        "decimal": st.sampled_from([","]),
    },
)


def checked(found):
    assert len({one.columns for one in found.series}) == 1 and found.rows >= len(found)
    for one in found.series:
        assert one.values.dtype == np.float64 and one.values.shape == (len(one.times()), len(found.columns))
        assert not np.isinf(one.values).any() and (np.diff(one.times()).astype(np.int64) > 0).all()
        members = sample_members("k", sample_of(one), "series")
        again = series_of(sample_of(one)["key"], decode_array(members["npy"]), decode_json(members["json"]))
        assert again.values.tobytes() == one.values.tobytes()
        assert (again.key, again.columns, again.start, again.frequency) == (one.key, one.columns, one.start, one.frequency)
        assert (again.static, again.label) == (one.static, one.label)


@settings(max_examples=250, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(text=tables(), options=OPTIONS)
def test_any_table_is_read_or_refused(tmp_path_factory, text, options):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_text(text, encoding="utf-8", errors="surrogatepass", newline="")
    try:
        found = SeriesSet.open(str(path), **options)
    except DataError as error:
        assert str(error) and "\n" not in str(error).replace(repr(text), "")[:40]
        return
    checked(found)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.binary(max_size=200), suffix=st.sampled_from([".csv", ".csv.gz", ".tsv", ".parquet"]))
def test_any_bytes_are_read_or_refused(tmp_path_factory, data, suffix):
    path = tmp_path_factory.getbasetemp() / f"bytes{suffix}"
    path.write_bytes(data)
    try:
        checked(SeriesSet.open(str(path)))
    except DataError:
        return


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(text=good_tables())
def test_a_good_table_is_read_to_the_last_bit(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "good.csv"
    path.write_text(text)
    try:
        one = SeriesSet.open(str(path)).series[0]
    except DataError as error:  # the most frequent difference need not divide the others
        assert "resample" in str(error)
        return
    rows = {line.split(",")[0]: line.split(",")[1:] for line in text.splitlines()[1:]}
    for time, values in zip(one.times(), one.values, strict=True):
        cells = rows.pop(str(time), ["", ""])
        want = np.array([float(cell) if cell else np.nan for cell in cells])
        assert np.array_equal(values, want, equal_nan=True)
    assert not rows


@settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    content=st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(-3, 3), st.floats(), st.text(max_size=5)),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.dictionaries(
                st.sampled_from(["columns", "start", "frequency", "static", "label", "name", "x"]), inner, max_size=6
            ),
        ),
    ),
    shape=st.lists(st.integers(0, 3), max_size=3),
)
def test_any_content_of_a_sample_is_read_or_refused(content, shape):
    stream = io.BytesIO()
    np.save(stream, np.zeros(shape))
    try:
        series_of("k", decode_array(stream.getvalue()), content)
    except DataError:
        return


@pytest.mark.parametrize(
    "start", ["0000-01-01", "9999-12-31T23:59:59", "NaT", "today", "now", "2020", "99999-01-01", "-5000-01-01"]
)
@pytest.mark.parametrize("frequency", ["h", "MS", "YE-DEC", "B", "9999999D", "99999999999YS-JAN"])
def test_times_out_of_range_are_refused_with_a_sentence(start, frequency):
    try:
        one = series_of("k", np.zeros((3, 1)), {"columns": ["a"], "start": start, "frequency": frequency})
        one.times()
    except DataError:
        return
