"""The step between the rows of a series: inferred from its times, checked at every row, and the gaps between them.

A step is fixed (`h`, `15min`, `D`, `7D`), or it follows the calendar (`B`, `MS`, `ME`, `QS-JAN`, `YE-DEC`). Inferred steps are the most
frequent difference; every other difference must be a whole number of steps, and is then a gap.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from modalign.zoo.errors import DataError

_UNITS = (("D", 86_400_000_000), ("h", 3_600_000_000), ("min", 60_000_000), ("s", 1_000_000), ("ms", 1000), ("us", 1))
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_DAY = 86_400_000_000
_FIRST, _LAST = (int(np.datetime64(day, "us").astype(np.int64)) for day in ("0001-01-01", "9999-12-31"))
MAX_GROWTH = 20  # rows that may come to stand for one row of the file before a gap is taken for a wrong date


@lru_cache(256)
def _offset(frequency: str) -> Any:
    import pandas as pd

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pd.tseries.frequencies.to_offset(frequency)


@lru_cache(256)
def fixed_step(frequency: str) -> int | None:
    """Microseconds of a step of fixed length; None for one that follows the calendar."""
    import pandas as pd

    offset = _offset(frequency)
    if isinstance(offset, pd.offsets.Day):  # a calendar day since pandas 3; times here have no zone, so that its length is fixed
        return int(offset.n) * _DAY
    if isinstance(offset, pd.offsets.Tick):
        return int(pd.Timedelta(offset).value) // 1000
    return None


def checked_frequency(frequency: str, where: str) -> str:
    """Returns a step in the one way it is written here (`60min` -> `h`).

    Raises:
        DataError: If pandas knows no such step, or it is not above zero.
    """
    try:
        offset = _offset(frequency)
        step = fixed_step(frequency)
        good = offset is not None and offset.n >= 1 and (step is None or step >= 1)
    except (ValueError, TypeError, AttributeError, OverflowError):  # what pandas raises on other texts
        good = False
    if not good:
        raise DataError(
            f"{where}: {frequency!r} is no step between rows; write it as pandas does, e.g. h, 15min, D, B, 7D, MS, ME, QS-JAN, YE-DEC"
        )
    return fixed_name(step) if step is not None else str(offset.freqstr)


def fixed_name(step: int) -> str:
    """The name of a fixed step of so many microseconds: 3_600_000_000 -> `h`."""
    unit, size = next((unit, size) for unit, size in _UNITS if step % size == 0)
    return unit if step == size else f"{step // size}{unit}"


def grid(start: np.datetime64, frequency: str, count: int) -> np.ndarray:
    """The times of `count` rows from `start`; (count,) datetime64[us].

    Raises:
        DataError: If they leave the years 1 to 9999.
    """
    step, first = fixed_step(frequency), start.astype("datetime64[us]")
    if step is not None and _FIRST <= int(first.astype(np.int64)) <= _LAST - (count - 1) * step:
        return np.asarray(first + np.arange(count) * np.timedelta64(step, "us"))
    import pandas as pd

    try:
        if step is not None:
            raise OverflowError
        times = pd.date_range(pd.Timestamp(first), periods=count, freq=_offset(frequency), unit="us").to_numpy()
        if not _FIRST <= int(times[-1].astype(np.int64)) <= _LAST:
            raise OverflowError
        return np.asarray(times)
    except (ValueError, OverflowError):  # pandas' own are ValueErrors
        raise DataError(
            f"{count} rows from {start} with the step {frequency} leave the years 1 to 9999; correct the times"
        ) from None


def said(moment: np.datetime64 | np.integer) -> str:
    """How messages write a time: `2016-07-01 00:00`, with seconds and their parts only where there are some; a row number as it is."""
    text = str(moment)
    return text.replace("T", " ").removesuffix(".000000").removesuffix(":00") if "T" in text else text


def common_step(differences: np.ndarray) -> int:
    """The most frequent of some differences (the smallest of equally frequent ones)."""
    values, counts = np.unique(differences, return_counts=True)
    return int(values[counts.argmax()])


def infer_frequency(times: np.ndarray) -> str:
    """The step of some times.

    Args:
        times: (T,) datetime64[us], rising, T at least 2.

    Returns:
        A step in which the most frequent difference is one step. Whether all rows are on it, `positions` says.
    """
    step = common_step(np.diff(times).astype(np.int64))
    if step >= 28 * _DAY:
        return _calendar(times) or fixed_name(step)
    return "B" if step == _DAY and _weekdays_only(times) else fixed_name(step)


def _calendar(times: np.ndarray) -> str | None:
    """The step of times that are all starts of months, or all ends of months, at the same hour; else None."""
    days = times.astype("datetime64[D]")
    if len(np.unique(times - days)) > 1:
        return None
    months = days.astype("datetime64[M]")
    starts, ends = (days == months).all(), (days + 1 == (months + 1).astype("datetime64[D]")).all()
    numbers = months.astype(np.int64)
    every = common_step(np.diff(numbers)) if starts or ends else 0
    if every < 1 or (np.diff(numbers) % every).any():
        return None
    kind, month = "S" if starts else "E", int(numbers[0] % 12)
    if every == 1:
        return f"M{kind}"
    if every == 12:
        return f"Y{kind}-{_MONTHS[month]}"
    if every == 3:  # anchored as pandas does by default: to January, February or March, or the quarter's last month of an end
        return f"QS-{_MONTHS[month % 3]}" if starts else f"QE-{_MONTHS[month % 3 + 9]}"
    return f"{every}M{kind}"


def _weekdays_only(times: np.ndarray) -> bool:
    """True if there is no Saturday and no Sunday among daily times, though ten of them or more span some."""
    weekday = (times.astype("datetime64[D]").astype(np.int64) + 3) % 7  # 1970-01-01 was a Thursday
    return bool((weekday < 5).all() and len(times) >= 10 and (np.diff(weekday) < 0).any())


def positions(times: np.ndarray, frequency: str, where: str, rows: Sequence[int] | np.ndarray) -> np.ndarray:
    """The row number of each time on the grid of a step that begins with the first of them; (T,) int64.

    Args:
        times: (T,) datetime64[us], rising.
        frequency: The step.
        where: File and series, for messages.
        rows: (T,) their rows in the file, for messages.

    Raises:
        DataError: If a time is not on the grid, or nearly the whole grid would be empty.
    """
    step = fixed_step(frequency)
    if step is not None:
        return step_positions((times - times[0]).astype(np.int64), step, where, rows, times, frequency)
    import pandas as pd

    ahead = grid(times[0], frequency, 2)
    if ahead[0] != times[0]:
        raise DataError(f"{where}: row {rows[0]} ({said(times[0])}) is not on the step {frequency}; {_remedy(times, frequency)}")
    about = (times[-1] - times[0]) / (ahead[1] - ahead[0])
    _check_growth(int(about / 3), len(times), where, frequency, np.diff(times).astype(np.int64), times, rows)
    whole = pd.date_range(pd.Timestamp(times[0]), pd.Timestamp(times[-1]), freq=_offset(frequency), unit="us").to_numpy()
    found = np.minimum(np.searchsorted(whole, times), len(whole) - 1)
    _check_on_grid(whole[found] != times, where, rows, times, frequency)
    return found.astype(np.int64)


def step_positions(
    passed: np.ndarray, step: int, where: str, rows: Sequence[int] | np.ndarray, times: np.ndarray, named: str
) -> np.ndarray:
    """`passed / step` where that is a whole number throughout; see `positions`.

    Args:
        passed: (T,) int64, distance of each row from the first.
        step: Distance of neighbours.
        where: File and series, for messages.
        rows: (T,) their rows in the file, for messages.
        times: (T,) what messages call the rows.
        named: How messages call the step.
    """
    found, rest = np.divmod(passed, step)
    _check_on_grid(rest != 0, where, rows, times, named)
    _check_growth(int(found[-1]) + 1, len(times), where, named, np.diff(passed), times, rows)
    return found


def _remedy(times: np.ndarray, named: str) -> str:
    """What to do about a time off the step: monthly rows want another thing than hours, and row numbers another than times."""
    if times.dtype.kind != "M":
        return "correct the row number, or say --time none if rows simply follow each other at equal steps"
    period = None if fixed_step(named) is None else _period(times)
    if period is None:
        again = f"resample the series to one step (pandas: frame.resample({named!r}).mean())"
        return f"{again}, correct the time, or give another step with --frequency"
    letter, name, start = period
    working = _working_ends(times) if letter == "M" else None
    if working:
        return f"these are {working[1]} of months: say --frequency {working[0]}"
    return (
        f"the rows are about a {name} apart: move each to the start of its {name} (pandas: frame.index = "
        f"frame.index.to_period({letter!r}).to_timestamp(), the step is then {start}), or give another step with --frequency"
    )


def _period(times: np.ndarray) -> tuple[str, str, str] | None:
    """(pandas' letter, name, step) if neighbours are a month, a quarter or a year apart, whatever the day."""
    days = float(np.median(np.diff(times).astype(np.int64))) / _DAY if len(times) > 1 else 0.0
    periods = ((28, 32, "M", "month", "MS"), (89, 93, "Q", "quarter", "QS"), (364, 367, "Y", "year", "YS"))
    return next((tuple(rest) for low, high, *rest in periods if low <= days < high), None)  # type: ignore[return-value]


def _working_ends(times: np.ndarray) -> tuple[str, str] | None:
    """(step, what it is) if all are the last, or all the first, working days of months."""
    import pandas as pd

    for offset, name, what in (
        (pd.offsets.BMonthEnd(), "BME", "last working days"),
        (pd.offsets.BMonthBegin(), "BMS", "first working days"),
    ):
        if all(offset.is_on_offset(pd.Timestamp(time)) for time in times):
            return name, what
    return None


def _check_on_grid(off: np.ndarray, where: str, rows: Sequence[int] | np.ndarray, times: np.ndarray, named: str) -> None:
    if off.any():
        first, more = int(off.argmax()), int(off.sum()) - 1
        others = f", and neither do {more} more of {len(times)} rows" if more else ""
        raise DataError(
            f"{where}: the step is {named}, but row {rows[first]} ({said(times[first])}) comes at no whole number of steps after "
            f"row {rows[0]} ({said(times[0])}){others}; {_remedy(times, named)}"
        )


def _check_growth(
    grown: int, count: int, where: str, named: str, gaps: np.ndarray, times: np.ndarray, rows: Sequence[int] | np.ndarray
) -> None:
    if grown > MAX_GROWTH * count + 1000:
        last = int(gaps.argmax())
        raise DataError(
            f"{where}: with the step {named}, {count} rows would be spread over about {grown}; the largest gap is between "
            f"row {rows[last]} ({said(times[last])}) and row {rows[last + 1]} ({said(times[last + 1])}): correct a wrong time there, or "
            "resample to a larger step"
        )
