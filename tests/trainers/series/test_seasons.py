"""Which season a step suggests, and what becomes of one that does not fit."""

import pytest

from modalign.datasets.series.frequency import checked_frequency
from modalign.trainers.series.seasons import season_of, seasons_of, skipped_starts

#: step -> steps of a day, of a week or of a year, counted by hand
SEASONS = {
    "h": 24,
    "15min": 96,
    "10min": 144,
    "min": 1440,
    "30s": 2880,
    "500ms": 172_800,
    "6h": 4,
    "12h": 2,
    "7h": None,  # no whole number of them is a day
    "24h": 7,
    "D": 7,
    "2D": None,
    "7D": 52,
    "168h": 52,
    "W": 52,
    "W-TUE": 52,
    "2W": 26,
    "14D": 26,
    "28D": 13,
    "35D": None,
    "B": 5,
    "MS": 12,
    "ME": 12,
    "2MS": 6,
    "5ME": None,
    "QS-JAN": 4,
    "QE-DEC": 4,
    "2QS-FEB": 2,
    "YS-JAN": None,
    "YE-DEC": None,
}


@pytest.mark.parametrize("frequency", SEASONS)
def test_the_season_of_a_step(frequency):
    assert season_of(frequency) == season_of(checked_frequency(frequency, "here")) == SEASONS[frequency]


def test_rows_without_time_have_no_season():
    assert season_of(None) is None and seasons_of(None, 30) == [30]


@pytest.mark.parametrize(
    ("frequency", "look_back", "seasons"),
    [
        ("h", 96, [24, 96]),
        ("h", 24, [24]),
        ("h", 23, [23]),
        ("7D", 104, [52, 104]),
        ("YS-JAN", 12, [12]),
        ("D", 1, []),
    ],
)
def test_seasons_that_a_window_holds(frequency, look_back, seasons):
    assert seasons_of(frequency, look_back) == seasons


@pytest.mark.parametrize(
    ("stride", "frequency", "places", "near"),
    [(24, "h", 1, 25), (8, "h", 3, 11), (9, "h", 8, 11), (7, "D", 1, 8), (48, "10min", 3, 49)],
)
def test_strides_that_see_some_places_of_the_season_only(stride, frequency, places, near):
    said = skipped_starts(stride, frequency)
    season = season_of(frequency)
    assert len({(stride * window) % season for window in range(10 * season)}) == places
    assert f"begin at {places} of the {season} places" in said and said.endswith(f"such as {near}")
    assert skipped_starts(near, frequency) is None


@pytest.mark.parametrize(("stride", "frequency"), [(1, "h"), (25, "h"), (24, None), (6, "D"), (5, "17min")])
def test_strides_that_see_all(stride, frequency):
    assert skipped_starts(stride, frequency) is None
