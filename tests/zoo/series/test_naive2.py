"""Naive2: the season of a made-up series comes back exactly, and a series without one is forecast by its last value."""

import numpy as np
import pytest

from modalign.zoo.series.naive2 import is_seasonal, naive2, seasonal_ratios

RATIOS = np.array([0.5, 1.5, 1.2, 0.8])


def made(seasons, ratios=RATIOS, level=10.0):
    return level * np.tile(ratios, seasons)


def test_ratios_of_a_pure_season_are_exact():
    assert seasonal_ratios(made(6), 4) == pytest.approx(RATIOS / RATIOS.mean())
    odd = np.array([0.7, 1.3, 1.0])
    assert seasonal_ratios(made(6, odd), 3) == pytest.approx(odd)


@pytest.mark.parametrize("cut", [0, 1, 2, 3])
def test_a_pure_season_goes_on(cut):
    series = made(9)
    history = series[: 24 + cut]
    assert is_seasonal(history, 4)
    assert naive2(history, 6, 4) == pytest.approx(series[24 + cut : 30 + cut])


def test_level_and_season_are_told_apart():
    """With a growing level the last level stays and the season goes on."""
    series = made(8) * np.linspace(1, 1.01, 32)
    forecast = naive2(series, 4, 4)
    assert forecast / forecast.mean() == pytest.approx(RATIOS / RATIOS.mean(), rel=0.01)
    assert forecast.mean() == pytest.approx(10 * 1.01, rel=0.01)


@pytest.mark.parametrize(
    "series",
    [np.random.default_rng(0).normal(100, 1, 60), made(2), np.full(40, 7.0), made(8) - 8, np.arange(1.0, 41)],
    ids=["noise", "two seasons", "constant", "below zero", "trend alone at season 1"],
)
def test_without_a_season_it_is_the_last_value(series):
    season = 1 if len(series) == 40 and series[-1] == 40 else 4
    assert not is_seasonal(series, season)
    assert naive2(series, 3, season) == pytest.approx(np.full(3, series[-1]))


def test_the_limit_is_that_of_the_competition():
    """Against a slow version, over series with a weak season, some above and some below the limit."""
    found = set()
    for seed in range(40):
        rng = np.random.default_rng(seed)
        series = 50 + 1.2 * np.tile([0, 1, 0, -1], 12) + rng.normal(0, 1.5, 48)
        x = series - np.mean(series)
        r = [sum(x[t] * x[t - k] for t in range(k, 48)) / sum(x * x) for k in range(1, 5)]
        expected = abs(r[3]) > 1.645 * ((1 + 2 * (r[0] ** 2 + r[1] ** 2 + r[2] ** 2)) / 48) ** 0.5
        assert is_seasonal(series, 4) == expected
        found.add(expected)
    assert found == {True, False}
