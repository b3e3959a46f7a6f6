"""Forecasts that need no model: the training mean, the window's mean, the last value, the last season. In every table, beside every model.

Each is a pure function of a scaled window (B, L, C), its mask (B, L, C) or None, and the horizon; it returns (B, H, C). A missing value is
never read: what it would have given comes from the nearest thing that was observed, as each function says.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import DataError
from .window import filled, window_means


def train_mean(values: Tensor, observed: Tensor | None, horizon: int) -> Tensor:
    """The mean of the training rows, which is 0 for scaled values."""
    return values.new_zeros(values.shape[0], horizon, values.shape[2])


def window_mean(values: Tensor, observed: Tensor | None, horizon: int) -> Tensor:
    """The mean of what was observed in the window; 0, the training mean, where nothing was."""
    return window_means(values, observed).expand(-1, horizon, -1).clone()


def last_value(values: Tensor, observed: Tensor | None, horizon: int) -> Tensor:
    """The last value that was observed; 0, the training mean, where nothing was."""
    return filled(values, observed)[:, -1:].expand(-1, horizon, -1).clone()


def seasonal_naive(values: Tensor, observed: Tensor | None, horizon: int, season: int) -> Tensor:
    """The last season again and again: step h (from 0) is the value at `L - season + (h mod season)`.

    Only the last `season` steps are read, so a longer window changes nothing; unless one of them is missing: then its place is taken by
    the same step of the latest season in which it was observed, and by the window's mean if there is none.

    Args:
        values: (B, L, C), scaled.
        observed: (B, L, C) bool; None means that everything was.
        horizon: H.
        season: Steps of a season: 24 for hours of a day.

    Raises:
        DataError: If the window is shorter than a season.
    """
    look_back = values.shape[1]
    if not 1 <= season <= look_back:
        raise DataError(
            f"seasonal naive: a season of {season} steps must be from 1 to the {look_back} of the look-back; take a shorter season or a "
            "longer look-back"
        )
    steps = torch.arange(horizon, device=values.device) % season
    return _last_season(values, observed, season)[:, steps]


def _last_season(values: Tensor, observed: Tensor | None, season: int) -> Tensor:
    """The last season (B, season, C), with the same step of earlier seasons where it is missing."""
    latest = values[:, -season:]
    if observed is None:
        return latest
    known = observed[:, -season:]
    latest = torch.where(known, latest, window_means(values, observed))
    for end in range(values.shape[1] - season, 0, -season):
        start = max(0, end - season)
        cut = season - (end - start)  # the earliest season may be incomplete: it lacks its first steps
        take = observed[:, start:end] & ~known[:, cut:]
        latest = torch.cat([latest[:, :cut], torch.where(take, values[:, start:end], latest[:, cut:])], 1)
        known = torch.cat([known[:, :cut], known[:, cut:] | take], 1)
    return latest


def naive_forecasts(values: Tensor, observed: Tensor | None, horizon: int, seasons: Sequence[int] = ()) -> dict[str, Tensor]:
    """All of them by name: `train_mean`, `window_mean`, `last_value`, and `seasonal_naive_M` for each season M.

    Args:
        values: (B, L, C), scaled.
        observed: (B, L, C) bool; None means that everything was.
        horizon: H.
        seasons: Seasons; one that is longer than the window is left out, as there is no such forecast.

    Returns:
        Name -> (B, H, C).
    """
    found = {
        "train_mean": train_mean(values, observed, horizon),
        "window_mean": window_mean(values, observed, horizon),
        "last_value": last_value(values, observed, horizon),
    }
    for season in seasons:
        if season <= values.shape[1]:
            found[f"seasonal_naive_{season}"] = seasonal_naive(values, observed, horizon, season)
    return found
