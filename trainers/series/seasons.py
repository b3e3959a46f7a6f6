"""Which seasons a step between rows suggests."""

from __future__ import annotations

import math
import re

from modalign.datasets.series.frequency import fixed_step

_DAY = 86_400_000_000  # microseconds
_WEEK = 7 * _DAY
#: steps of a year (of a week, for working days), by the calendar's units
_CALENDAR = {"B": 5, "W": 52, "MS": 12, "ME": 12, "QS": 4, "QE": 4}


def season_of(frequency: str | None) -> int | None:
    """Steps of the season that a step between rows suggests; None where there is none of two steps or more.

    A day of hours or minutes, a week of days, a year of weeks, months or quarters, and of whole numbers of them (`6h`: 4, `14D`: 26).

    Args:
        frequency: Step between rows, as pandas writes it; None where rows have no time.
    """
    if frequency is None:
        return None
    step = fixed_step(frequency)
    if step is None:
        found = re.match(r"(\d*)([A-Z]+)", frequency)
        whole, every = (_CALENDAR.get(found[2], 0), int(found[1] or 1)) if found else (0, 1)
    elif step < _DAY:
        whole, every = _DAY, step
    else:
        whole, every = (52 * _WEEK, step) if step % _WEEK == 0 else (_WEEK, step)
    return whole // every if whole % every == 0 and whole >= 2 * every else None


def seasons_of(frequency: str | None, look_back: int) -> list[int]:
    """Seasons for the seasonal naive forecast of a window: that of the step, if the window holds one, and the whole window.

    Args:
        frequency: Step between rows, as pandas writes it; None where rows have no time.
        look_back: L, steps of the window.
    """
    return sorted({season for season in (season_of(frequency), look_back) if season is not None and 1 < season <= look_back})


def skipped_starts(stride: int, frequency: str | None) -> str | None:
    """Says that windows so far apart begin at some places of the season only; None if they begin at all of them.

    A model that saw windows from midnight on alone, every 24 hours, is measured on those from all other hours too, and fails there.

    Args:
        stride: Steps between the starts of windows.
        frequency: Step between rows, as pandas writes it; None where rows have no time.
    """
    season = season_of(frequency)
    if season is None or (shared := math.gcd(stride, season)) == 1:
        return None
    near = next(other for other in range(stride + 1, stride + season + 1) if math.gcd(other, season) == 1)
    return (
        f"data.series.stride: windows {stride} steps apart begin at {season // shared} of the {season} places of a season only, and the "
        f"model sees no others; take a stride without a common factor, such as {near}"
    )
