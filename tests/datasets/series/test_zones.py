"""Times with offsets: days by the file's own clock, hours in UTC, and future times written as the file would."""

import json

import dateutil.tz
import numpy as np
import pandas as pd
import pytest

from modalign.datasets.series.series_set import SeriesSet
from modalign.datasets.series.stored import sample_of, series_of, write_series
from modalign.datasets.series.times import parse_times
from modalign.datasets.series.zones import offsets_in, written, zone_of
from modalign.zoo.errors import DataError


def local(frequency, count, start="2021-01-01", zone="Europe/Berlin"):
    return pd.date_range(start, periods=count, freq=frequency, tz=zone)


def opened(tmp_path, times, **options):
    path = tmp_path / "t.csv"
    path.write_text("ds,v\n" + "".join(f"{time.isoformat()},{row}\n" for row, time in enumerate(times)))
    return SeriesSet.open(str(path), **options)


@pytest.mark.parametrize(
    ("frequency", "count"),
    [("D", 300), ("B", 120), ("MS", 30), ("ME", 30), ("QS-JAN", 12), ("YS-JAN", 5), ("W-MON", 60), ("h", 2000)],
)
def test_the_future_is_written_as_the_file_would_go_on(tmp_path, frequency, count):
    """Midnights in Berlin, written with their offsets: 23 and 25 hours apart in spring and autumn, yet a day."""
    whole = local(frequency, count + 40)
    one = opened(tmp_path, whole[:count]).series[0]
    assert len(one) == count and not np.isnan(one.values).any()
    assert one.frequency == ("7D" if frequency == "W-MON" else frequency)
    assert [written(time, one.zone, one.frequency) for time in one.future(40)] == [str(time) for time in whole[count:]]
    assert [written(time, one.zone, one.frequency) for time in one.times()] == [str(time) for time in whole[:count]]


def test_days_begin_at_midnight_of_the_files_own_clock(tmp_path):
    found = opened(tmp_path, local("D", 120, "2021-03-25"))
    assert str(found.series[0].start) == "2021-03-25T00:00:00.000000" and "by its own clock" in found.notes[0]
    shifted = opened(tmp_path, local("MS", 12, zone="Asia/Tokyo"))  # in UTC these are last days of months, at 15:00
    assert shifted.frequency == "MS" and shifted.series[0].zone == "+09:00"


def test_series_in_zones_of_their_own(tmp_path):
    path = tmp_path / "t.csv"
    rows = [
        (key, time)
        for key in ("Berlin", "Paris", "New_York")
        for time in local("D", 120, "2021-02-20", zone=f"{ZONES[key]}/{key}")
    ]
    path.write_text("ds,unique_id,v\n" + "".join(f"{time.isoformat()},{key},1\n" for key, time in rows))
    found = SeriesSet.open(str(path))
    future = {one.key: written(one.future(200)[-1], one.zone, "D") for one in found.series}
    assert found.frequency == "D" and [future["Berlin"][-6:], future["New_York"][-6:]] == ["+01:00", "-05:00"]


ZONES = {"Berlin": "Europe", "Paris": "Europe", "New_York": "America"}


def test_a_zone_is_found_by_its_offsets_and_only_if_its_future_is_certain():
    days = local("D", 300).tz_convert("UTC").tz_localize(None).to_numpy().astype("datetime64[us]")
    name = zone_of(days, offsets_in("Europe/Berlin", days))
    later = days + np.timedelta64(700, "D")
    assert np.array_equal(offsets_in(name, later), offsets_in("Europe/Berlin", later))
    january = days[:20]
    assert zone_of(january, offsets_in("Europe/Berlin", january)) == "+01:00"  # as well Lagos, where there is no summer time
    odd = offsets_in("Europe/Berlin", days)
    odd[100:] += 1_000_000  # no zone of the earth
    assert zone_of(days, odd) == "+02:00:01" or zone_of(days, odd) == "+01:00:01"


def test_names_of_parquet_and_formats_with_offsets():
    days = pd.Series(local("D", 200), name="ds")
    assert parse_times(days, "t")[1].name == "Europe/Berlin"
    unnamed = days.dt.tz_convert(dateutil.tz.gettz("Europe/Berlin"))  # a zone that calls itself by its file
    assert parse_times(unnamed, "t")[1].name is None
    texts = days.map(lambda time: time.strftime("%d.%m.%Y %H:%M %z"))
    times, zone = parse_times(texts, "t", "%d.%m.%Y %H:%M %z")
    assert np.array_equal(times, parse_times(days, "t")[0]) and np.array_equal(zone.offsets, parse_times(days, "t")[1].offsets)


def test_shards_keep_the_zone_and_nothing_in_them_is_trusted(tmp_path):
    found = opened(tmp_path, local("D", 120, "2021-02-20"))
    write_series(found.series, tmp_path / "shards", source="t")
    again = SeriesSet.open(str(tmp_path / "shards"))
    assert again.series[0].zone == found.series[0].zone and again.fingerprint == found.fingerprint
    content = {key: value for key, value in sample_of(found.series[0]).items() if key not in ("key", "members")}
    for zone in ("Mars/Olympus", "+2", 3, "../etc", "+99:00", ""):
        with pytest.raises(DataError, match="is no time zone such as"):
            series_of("t", found.series[0].values, json.loads(json.dumps(content | {"zone": zone})))
