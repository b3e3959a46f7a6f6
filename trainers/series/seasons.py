"""Which seasons a step between rows suggests."""

from __future__ import annotations

_SECONDS = {"s": 1, "min": 60, "h": 3600, "D": 86400, "W": 604800}
_DAY = 86400


def seasons_of(frequency: str | None, look_back: int) -> list[int]:
    """Seasons for the seasonal naive forecast, in steps.

    A day of hours or minutes, a week of days, a year of weeks, months or quarters, and the whole look-back; those longer than the
    look-back are left out.

    Args:
        frequency: Step between rows, as pandas writes it; None where rows have no time.
        look_back: L.
    """
    return sorted({season for season in (_season(frequency), look_back) if season is not None and 1 < season <= look_back})


def _season(frequency: str | None) -> int | None:
    if frequency is None:
        return None
    count = "".join(letter for letter in frequency if letter.isdigit())
    unit = frequency[len(count) :].split("-")[0]
    if unit in ("s", "min", "h"):
        day, rest = divmod(_DAY, int(count or 1) * _SECONDS[unit])
        return day if not rest else None
    by_name = {"D": 7, "B": 5, "W": 52, "ME": 12, "MS": 12, "M": 12, "QE": 4, "QS": 4, "Q": 4}
    return by_name.get(unit) if count in ("", "1") else None
