"""Time zones of a table: which clock its rows follow, and how its times are written again.

A file gives offsets (`2021-03-28T00:00+01:00`), rarely the name of a zone. Hours are counted in UTC, where none is missing or there twice
in spring and autumn. Days, working days, months and longer steps are counted by the file's own clock, where midnight is midnight. To write
future times as the file would, its zone is the one whose offsets are those of all rows; where no single behaviour fits, it stays at the
last offset.
"""

from __future__ import annotations

import zoneinfo
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import lru_cache

import numpy as np

from .frequency import common_step, fixed_step

_DAY = 86_400_000_000
_AHEAD = 3 * 365  # days for which zones must agree before one of them stands for all
_NO_PLACE = ("Etc/", "SystemV/", "posix/", "right/")


@dataclass(frozen=True)
class Zoned:
    """What a column says of its zone.

    Attributes:
        offsets: (T,) int64, microseconds that each row's own clock is ahead of UTC.
        name: The zone's name, where the file gives it.
    """

    offsets: np.ndarray
    name: str | None = None


def by_own_clock(frequency: str | None) -> bool:
    """True if a step is counted by the file's own clock: a day and longer, and everything that follows the calendar."""
    if frequency is None:
        return False
    step = fixed_step(frequency)
    return step is None or step >= _DAY


def days_or_longer(times: list[np.ndarray]) -> bool:
    """True if the most frequent step of some series (each datetime64[us], by their own clock) is a day or longer."""
    steps = np.concatenate([np.diff(one).astype(np.int64) for one in times])
    return bool(len(steps)) and common_step(steps) >= _DAY


def zone_of(times: np.ndarray, offsets: np.ndarray) -> str:
    """The zone of some rows: the name of one that has their offsets, or the last offset (`+02:00`).

    Args:
        times: (T,) datetime64[us], UTC, rising.
        offsets: (T,) microseconds ahead of UTC.
    """
    last = _offset_name(int(offsets[-1]))
    places = np.flatnonzero(np.diff(offsets))
    if not len(places):
        return last
    around = np.unique(np.concatenate([places, places + 1]))
    seconds = times.astype("datetime64[s]").astype(np.int64)
    name = _named(tuple((int(seconds[place]), int(offsets[place]) // 1_000_000) for place in around))
    return last if name is None or not np.array_equal(offsets_in(name, times), offsets) else name


@lru_cache(256)
def _named(changes: tuple[tuple[int, int], ...]) -> str | None:
    """A zone with these (Unix time, offset in seconds), if all that have them also agree on the years that follow."""
    names = [name for name in sorted(zoneinfo.available_timezones()) if "/" in name and not name.startswith(_NO_PLACE)]
    fitting = [name for name in names if all(_offset_at(zone_named(name), moment) == offset for moment, offset in changes)]
    later = [changes[-1][0] + 86_400 * day for day in range(_AHEAD)]
    futures = {tuple(_offset_at(zone_named(name), moment) for moment in later) for name in fitting}
    return fitting[0] if len(futures) == 1 else None


def _offset_at(zone: tzinfo, moment: int) -> int:
    offset = datetime.fromtimestamp(moment, zone).utcoffset()
    assert offset is not None
    return int(offset.total_seconds())


def offsets_in(name: str, times: np.ndarray) -> np.ndarray:
    """(T,) microseconds that a zone is ahead of UTC at some times (datetime64[us], UTC)."""
    import pandas as pd

    whole = pd.DatetimeIndex(times).tz_localize("UTC").tz_convert(zone_named(name)).tz_localize(None)
    return (whole.to_numpy().astype("datetime64[us]") - times).astype(np.int64)


def is_zone(name: str) -> bool:
    """True if a text names a zone: `Europe/Berlin`, `+02:00`."""
    try:
        zone_named(name)
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
        return False
    return True


@lru_cache(1024)
def zone_named(name: str) -> tzinfo:
    """The zone of a name or an offset.

    Raises:
        ValueError: If an offset is none.
        ZoneInfoNotFoundError: If there is no such zone.
    """
    if not name.startswith(("+", "-")):
        return zoneinfo.ZoneInfo(name)
    hours, minutes, *seconds = (int(part) for part in name[1:].split(":"))
    offset = timedelta(hours=hours, minutes=minutes, seconds=seconds[0] if seconds else 0)
    return timezone(-offset if name[0] == "-" else offset)


def _offset_name(offset: int) -> str:
    seconds = abs(offset) // 1_000_000
    rest = f":{seconds % 60:02d}" if seconds % 60 else ""
    return f"{'-' if offset < 0 else '+'}{seconds // 3600:02d}:{seconds // 60 % 60:02d}{rest}"


def written(moment: np.datetime64, zone: str, frequency: str | None) -> str:
    """A time of a series as its file writes it, with the offset: `2021-03-29 00:00:00+02:00`.

    Args:
        moment: As `Series.times` has it.
        zone: The series' zone.
        frequency: Its step, which says whether times are UTC or the zone's own clock.
    """
    plain = moment.astype("datetime64[us]").item()
    assert isinstance(plain, datetime)
    there = zone_named(zone)
    known = plain.replace(tzinfo=there) if by_own_clock(frequency) else plain.replace(tzinfo=UTC).astimezone(there)
    return known.isoformat(sep=" ")
