"""Two steps in one series: a stretch of rows that are regularly further apart, or closer, than the others.

Rows missing here and there, long gaps and many gaps are no second step. But where row after row keeps another distance, the series was
recorded at another step there, and putting all of it on one grid would make up the rows in between.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from modalign.zoo.errors import DataError

from .frequency import infer_frequency, said

_MONTH = 28 * 86_400_000_000  # microseconds
_FEWEST, _ENOUGH = 8, 24  # equal differences in a row that are no chance, even where half of the rows are missing


def refuse_mixed(times: np.ndarray, where: str, rows: Sequence[int] | np.ndarray) -> None:
    """Raises an error if a stretch of a series, of a tenth of its rows or of 24, keeps a step of its own.

    Args:
        times: (T,) datetime64[us] or row numbers, rising.
        where: File and series, for messages.
        rows: (T,) their rows in the file, for messages.

    Raises:
        DataError: Naming both steps and the rows between which the second one lasts.
    """
    steps = _steps(times)
    values, counts = np.unique(steps, return_counts=True)
    if len(values) < 2:
        return
    starts = np.flatnonzero(np.diff(steps, prepend=steps[0] - 1))  # of runs of equal steps
    lengths = np.diff(starts, append=len(steps))
    usual = steps[starts] == values[counts.argmax()]
    odd, even = (int(np.where(which, lengths, 0).argmax()) for which in (~usual, usual))
    if lengths[odd] < min(_ENOUGH, max(_FEWEST, len(times) // 10)):
        return
    first, last = starts[odd], starts[odd] + lengths[odd]
    one, other = (_name(times[starts[run] : starts[run] + lengths[run] + 1]) for run in (even, odd))
    raise DataError(
        f"{where}: two steps in one series: rows are one {one} apart, but from row {rows[first]} ({said(times[first])}) to row "
        f"{rows[last]} ({said(times[last])}) they are one {other} apart; {_remedy(times, starts[even], starts[odd], one, other)}"
    )


def _steps(times: np.ndarray) -> np.ndarray:
    """(T - 1,) what lies between neighbours: microseconds, or minus the number of months from a start (or an end) of a month to another."""
    steps = np.diff(times).astype(np.int64)
    if times.dtype.kind == "i":
        return steps
    days = times.astype("datetime64[D]")
    months = days.astype("datetime64[M]")
    calendar = np.zeros(len(steps), dtype=bool)
    for there in (days == months, days + 1 == (months + 1).astype("datetime64[D]")):
        calendar |= there[1:] & there[:-1]
    calendar &= (np.diff(times - days).astype(np.int64) == 0) & (steps >= _MONTH)
    return np.where(calendar, -np.diff(months).astype(np.int64), steps)


def _name(times: np.ndarray) -> str:
    return str(int(times[1] - times[0])) if times.dtype.kind == "i" else infer_frequency(times)


def _remedy(times: np.ndarray, even: int, odd: int, one: str, other: str) -> str:
    if times.dtype.kind == "i":
        return "correct the row numbers, or say --time none if rows simply follow each other at equal steps"
    finer, coarser = (one, other) if times[even + 1] - times[even] < times[odd + 1] - times[odd] else (other, one)
    return (
        f"resample the series to one step (pandas: frame.resample({coarser!r}).mean()), or say --frequency {finer}, and rows in between "
        "count as missing"
    )
