"""Forecasts as a table: own units with every digit that counts, times as the history's file writes them."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modalign.datasets.series.series_set import Series
from modalign.datasets.series.zones import written
from modalign.zoo.errors import DataError
from modalign.zoo.series.predict import Forecast

_DIGITS = 7  # of a standard deviation: what float32 tells apart


def write_forecasts(path: Path, found: Sequence[tuple[Series, Forecast]]) -> None:
    """Writes a CSV: series (where there are several), time, a column per target and per quantile.

    Raises:
        DataError: If the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            first, forecast = found[0]
            head = ["series"] if len(found) > 1 else []
            time = "time" if first.start is not None else "row"
            named = [f"{column} q{level:g}" for column in forecast.columns for level in forecast.levels]
            writer.writerow([*head, time, *forecast.columns, *named])
            for one, forecast in found:
                writer.writerows([*([one.key] if head else []), *row] for row in rows_of(one, forecast))
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror or error}); choose another name with --out") from None


def rows_of(one: Series, forecast: Forecast, digits: int = _DIGITS) -> list[list[str]]:
    """A row per step: its time, the columns, their quantiles.

    Args:
        one: The history.
        forecast: What follows it.
        digits: How many digits of a column's standard deviation are written.
    """
    levels = 0 if forecast.quantiles is None else forecast.quantiles.shape[-1]
    sizes = [*forecast.sizes, *np.repeat(forecast.sizes, levels).tolist()]
    rows = []
    for step, moment in enumerate(one.future(len(forecast.values))):
        numbers = forecast.values[step].tolist()
        if forecast.quantiles is not None:
            numbers += forecast.quantiles[step].flatten().tolist()
        rows.append(
            [time_text(one, moment), *[number_text(value, size, digits) for value, size in zip(numbers, sizes, strict=True)]]
        )
    return rows


def number_text(value: float, size: float, digits: int = _DIGITS) -> str:
    """A number with so many digits of its column's size, or of its own where it is smaller: `98765432.1234567`, never `9.87654e+07`.

    Args:
        value: The number.
        size: Standard deviation of its column.
        digits: How many digits count.
    """
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    smaller = min(size, abs(value)) if size > 0 else abs(value)
    rounded = round(value, digits - math.floor(math.log10(smaller)))
    if not 1e-9 <= abs(rounded) < 1e16:  # no ordinary size: zeros would only hide the digits
        return f"{rounded:.{digits}g}"
    return np.format_float_positional(rounded, trim="-")


def time_text(one: Series, moment: Any) -> str:
    """A time, with the offset from UTC where the history's file gives such; or a row number."""
    if not isinstance(moment, np.datetime64):
        return str(moment)
    if one.zone is not None:
        return written(moment, one.zone, one.frequency)
    return str(moment.astype("datetime64[s]")).replace("T", " ")


def short_rows(one: Series, forecast: Forecast) -> tuple[tuple[str, ...], list[list[Any]]]:
    """Names and rows for a terminal: at most six columns, the first and last steps, fewer digits."""
    rows, names = rows_of(one, forecast, digits=2), ("time", *forecast.columns[:6])
    shown = rows if len(rows) <= 6 else [*rows[:3], ["…", *[""] * len(forecast.columns)], *rows[-2:]]
    return names, [[_short_time(row[0]), *row[1 : len(names)]] for row in shown]


def _short_time(text: str) -> str:
    return text.removesuffix(":00") if len(text) == 19 else text
