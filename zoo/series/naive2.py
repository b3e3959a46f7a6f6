"""Naive2, the reference forecast of the M competitions: the last value, after taking the season out and before putting it back.

A series counts as seasonal if its autocorrelation at the season is significant at 90 %. Then the classical multiplicative decomposition
(centred moving average, mean ratio of each step of the season, ratios scaled to mean 1) takes the season out. Series with a value of 0 or
below have no ratios and count as not seasonal. Source: Makridakis, Spiliotis, Assimakopoulos, The M4 competition (2020), appendix.
"""

from __future__ import annotations

import numpy as np

_LIMIT = 1.645  # of a normal distribution, two sides, 90 %


def naive2(history: np.ndarray, horizon: int, season: int) -> np.ndarray:
    """Forecasts one series.

    Args:
        history: (n,) everything before the forecast, without missing values.
        horizon: H.
        season: Steps of a season; 1 for none.

    Returns:
        (H,).
    """
    ratios = seasonal_ratios(history, season) if is_seasonal(history, season) else np.ones(1)
    phases = np.arange(len(history) + horizon) % len(ratios)
    last = history[-1] / ratios[phases[len(history) - 1]]
    return last * ratios[phases[len(history) :]]


def is_seasonal(history: np.ndarray, season: int) -> bool:
    """Whether the autocorrelation at the season is above `1.645 · sqrt((1 + 2 Σ_{i<m} r_i²) / n)`.

    Args:
        history: (n,).
        season: m.
    """
    count = len(history)
    if season < 2 or count < 3 * season or history.min() <= 0:
        return False
    centred = history - history.mean()
    total = float(centred @ centred)
    if total == 0:
        return False
    correlations = np.array([centred[lag:] @ centred[:-lag] / total for lag in range(1, season + 1)])
    limit = _LIMIT * np.sqrt((1 + 2 * np.sum(correlations[:-1] ** 2)) / count)
    return bool(abs(correlations[-1]) > limit)


def seasonal_ratios(history: np.ndarray, season: int) -> np.ndarray:
    """(m,) mean ratio of the series to its centred moving average at every step of the season, scaled to mean 1.

    Args:
        history: (n,) values above 0, n at least two seasons.
        season: m.
    """
    weights = np.full(season, 1 / season)
    if season % 2 == 0:  # an even season has no middle step: half a step more on either side
        weights = np.concatenate([[0.5], np.ones(season - 1), [0.5]]) / season
    half = len(weights) // 2
    average = np.convolve(history, weights, mode="valid")
    ratios = history[half : half + len(average)] / average
    phases = (np.arange(len(average)) + half) % season
    means = np.array([ratios[phases == phase].mean() for phase in range(season)])
    return means / means.mean()
