"""A column of a table as times.

Times are datetime64[us] without zone. Where the file gives zones or offsets, they are UTC, and the offset of every row is kept beside them;
where it gives none, they are what is written. Whole numbers are row numbers, unless `time_format` says what they count.
"""

from __future__ import annotations

import re
import warnings
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from modalign.zoo.errors import DataError

from .zones import Zoned, is_zone

if TYPE_CHECKING:
    import pandas as pd

_ZONE = re.compile(r"(?P<clock>:\d{2}(\.\d+)?)\s*(Z|z|UTC|GMT|[+-]\d{2}(:?\d{2})?)$")
_LIKE_A_TIME = re.compile(
    r"\d{4}[-/]\d{1,2}([-/]\d{1,2}.*)?|\d{1,2}[-./]\d{1,2}[-./]\d{4}.*|\d{1,2}[- ][A-Z][a-z]{2}[- ]\d{2,4}.*"
)
_UNIX = ("s", "ms", "us", "ns")
_DATES = (
    ("%d/%m/%Y", "%m/%d/%Y"),  # the same digits, two meanings: only one of them may fit
    ("%d.%m.%Y", "%m.%d.%Y"),
    ("%d-%m-%Y", "%m-%d-%Y"),
    ("%Y/%m/%d", "%Y/%d/%m"),
    ("%Y.%m.%d",),
    ("%d-%b-%y",),
    ("%d-%b-%Y",),
    ("%d %b %Y",),
    ("%d %B %Y",),
    ("%b %d, %Y",),
    ("%B %d, %Y",),
)
_CLOCKS = ("", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", " %I:%M %p", " %I:%M:%S %p")


def parse_times(column: pd.Series, where: str, time_format: str | None = None) -> tuple[np.ndarray, Zoned | None]:
    """Reads a column as times.

    Args:
        column: Text, or times as parquet has them.
        where: The file, for messages.
        time_format: As `strptime` has it, or `s`, `ms`, `us`, `ns` for Unix time.

    Returns:
        (T,) datetime64[us], or int64 where the column numbers rows; and the offsets from UTC, if the file gives zones.

    Raises:
        DataError: Naming the first row that is no time, or saying that days and months cannot be told apart.
    """
    import pandas as pd

    absent = column.isna()
    if pd.api.types.is_datetime64_any_dtype(column.dtype):
        _check_none(absent.to_numpy(), column, where)
        return _of_datetimes(column, where)
    if pd.api.types.is_float_dtype(column.dtype) and not time_format:
        raise DataError(f"{where}: column {column.name!r} {_NUMBERS}")
    texts = column.astype(object).where(~absent, "").map(str).str.strip().astype(object)
    _check_none((texts == "").to_numpy(), column, where)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _of_texts(texts, where, time_format)


def looks_like_times(column: pd.Series) -> bool:
    """True if a column that has not the name of one is one of times by its type or its first cell."""
    import pandas as pd

    if pd.api.types.is_datetime64_any_dtype(column.dtype):
        return True
    if pd.api.types.is_numeric_dtype(column.dtype) or pd.api.types.is_bool_dtype(column.dtype):
        return False
    return bool(_LIKE_A_TIME.fullmatch(str(column.iloc[0]).strip()))


_NUMBERS = (
    "holds numbers that are neither whole row numbers nor dates; say what they are with --time_format (s, ms, us or ns for Unix time, or "
    "such as %Y%m%d), or say --time none if rows simply follow each other at equal steps"
)


def _check_none(absent: np.ndarray, column: pd.Series, where: str) -> None:
    if absent.any():
        raise DataError(
            f"{where}: row {int(absent.argmax())} has no time (column {column.name!r}); give it one, or take the row out"
        )


def _of_datetimes(column: pd.Series, where: str) -> tuple[np.ndarray, Zoned | None]:
    if column.dt.tz is None:
        return _microseconds(column, where), None
    local = _microseconds(column.dt.tz_localize(None), where)
    times = _microseconds(column.dt.tz_convert("UTC").dt.tz_localize(None), where)
    name = str(column.dt.tz)
    return times, Zoned((local - times).astype(np.int64), name if "/" in name and is_zone(name) else None)


def _with_offsets(times: np.ndarray, local: pd.Series, where: str) -> tuple[np.ndarray, Zoned]:
    """Times, and how far what is written is ahead of them."""
    return times, Zoned((_microseconds(local, where) - times).astype(np.int64))


def _microseconds(column: pd.Series, where: str) -> np.ndarray:
    values = column.to_numpy()
    kept = values.astype("datetime64[us]")
    lost = kept != values
    if lost.any():
        raise DataError(
            f"{where}: row {int(lost.argmax())}, column {column.name!r}: times finer than a microsecond are not kept; round them"
        )
    return kept


def _of_texts(texts: pd.Series, where: str, time_format: str | None) -> tuple[np.ndarray, Zoned | None]:
    import pandas as pd

    if time_format in _UNIX:
        values = pd.to_numeric(texts, errors="coerce")
        _check_parsed(values, texts, where, f"a number of {time_format}")
        return _microseconds(_guarded(values, texts, where, unit=time_format), where), None
    if time_format and "%z" in time_format:
        return _of_offsets(texts, where, time_format)
    if time_format:
        values = _guarded(texts, texts, where, format=time_format, errors="coerce")
        _check_parsed(values, texts, where, f"a time written as {time_format!r}")
        return _of_datetimes(values, where)
    if texts.str.fullmatch(r"[+-]?\d+").all():
        return _row_numbers(texts, where), None
    zoned = texts.str.contains(_ZONE)
    if zoned.any() and not zoned.all():
        odd = int((~zoned).to_numpy().argmax())
        raise DataError(
            f"{where}: row {odd} ({texts.iloc[odd]!r}, column {texts.name!r}) has no time zone, others have one; write all alike"
        )
    values = _guarded(texts, texts, where, format="ISO8601", errors="coerce", utc=bool(zoned.all()))
    if values.isna().any():
        values = _other_format(texts, where)
    times, zoned_as = _of_datetimes(values, where)
    if zoned_as is None:
        return times, None
    local = texts.str.replace(_ZONE, lambda found: found["clock"], regex=True)
    return _with_offsets(times, _guarded(local, texts, where, format="ISO8601"), where)


def _of_offsets(texts: pd.Series, where: str, time_format: str) -> tuple[np.ndarray, Zoned]:
    """Times in a format with offsets, of which every row may have another."""
    values = _guarded(texts, texts, where, format=time_format, errors="coerce", utc=True)
    _check_parsed(values, texts, where, f"a time written as {time_format!r}")
    try:
        local = texts.map(lambda text: datetime.strptime(text, time_format).replace(tzinfo=None))
    except ValueError as error:  # pandas reads more than Python does
        raise DataError(f"{where}: column {texts.name!r} cannot be read as times ({error})") from None
    return _with_offsets(_microseconds(values.dt.tz_localize(None), where), local.astype("datetime64[us]"), where)


def _guarded(values: pd.Series, texts: pd.Series, where: str, **how: Any) -> pd.Series:
    """`pandas.to_datetime`, whose errors on numbers out of range are many."""
    import pandas as pd

    try:
        return pd.Series(pd.to_datetime(values, **how), name=texts.name)
    except (ValueError, OverflowError, TypeError) as error:
        raise DataError(f"{where}: column {texts.name!r} cannot be read as times ({' '.join(str(error).split())})") from None


def _check_parsed(values: pd.Series, texts: pd.Series, where: str, what: str) -> None:
    bad = values.isna().to_numpy()
    if bad.any():
        first = int(bad.argmax())
        raise DataError(f"{where}: row {first}, column {texts.name!r} is {texts.iloc[first]!r}, which is not {what}")


def _row_numbers(texts: pd.Series, where: str) -> np.ndarray:
    """Whole numbers as row numbers, unless they could as well be years, dates or Unix times."""
    try:
        values = texts.astype("int64").to_numpy()
    except (ValueError, OverflowError):
        raise DataError(f"{where}: column {texts.name!r} {_NUMBERS}") from None
    low, high = int(values.min()), int(values.max())
    for first, last, what, how in (
        (1500, 2200, "years", "%Y"),
        (150001, 220012, "months", "%Y%m"),
        (15000101, 22001231, "dates", "%Y%m%d"),
        (10**8, 2**63, "Unix times", "s, ms, us or ns"),
    ):
        if first <= low and high <= last:
            raise DataError(
                f"{where}: column {texts.name!r} holds whole numbers ({low} to {high}) that may be {what} or row numbers; say "
                f"--time_format {how} for {what}, or --time none if rows follow each other at equal steps"
            )
    return values


def _other_format(texts: pd.Series, where: str) -> pd.Series:
    """Times that are not written as ISO 8601 has it; day and month must be told apart by the file itself."""
    import pandas as pd

    for dates in _DATES:
        for clock in _CLOCKS:
            found = {}
            for date in dates:
                if pd.isna(pd.to_datetime(texts.iloc[0], format=date + clock, errors="coerce")):
                    continue
                values = _guarded(texts, texts, where, format=date + clock, errors="coerce")
                if not values.isna().any():
                    found[date + clock] = values
            if len(found) == 1 or (found and all(values.equals(next(iter(found.values()))) for values in found.values())):
                return next(iter(found.values()))
            if found:
                one, other = found
                raise DataError(
                    f"{where}: column {texts.name!r} can be read with the day first or the month first ({texts.iloc[0]!r}); say "
                    f"--time_format '{one}' or --time_format '{other}'"
                )
    iso = _guarded(texts, texts, where, format="ISO8601", errors="coerce")
    bad = iso.isna() if not iso.isna().all() else pd.isna(texts.where(texts.str.fullmatch(_LIKE_A_TIME)))
    first = int(bad.to_numpy().argmax())
    raise DataError(
        f"{where}: row {first}, column {texts.name!r} is {texts.iloc[first]!r}, which cannot be read as a time like the others; write "
        "2016-07-01 13:00:00, or say how it is written with --time_format such as '%d/%m/%Y %H:%M'"
    )
