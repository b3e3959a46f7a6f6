"""The measures of the M4 competition: sMAPE, MASE, OWA, and their averages by group (Makridakis et al. 2020).

Series differ in length, scale and horizon, so every measure is one number per series first and a mean of those afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..errors import DataError

#: subset -> (horizon, season)
M4_SUBSETS = {
    "Yearly": (6, 1),
    "Quarterly": (8, 4),
    "Monthly": (18, 12),
    "Weekly": (13, 1),
    "Daily": (14, 1),
    "Hourly": (48, 24),
}
_OTHERS = ("Weekly", "Daily", "Hourly")


def smape(forecast: Tensor, target: Tensor, observed: Tensor | None = None) -> Tensor:
    """`mean over steps of 200 |f - y| / (|f| + |y|)`, in percent, of each series; 0/0 counts as 0.

    Args:
        forecast: (S, H).
        target: (S, H).
        observed: (S, H) bool; None means that everything was.

    Returns:
        (S,) float64; NaN for a series of which nothing was observed.
    """
    forecast, target = forecast.double(), target.double()
    size = forecast.abs() + target.abs()
    return _mean(torch.where(size == 0, 0.0, 200 * (forecast - target).abs() / size), observed)


def mase_scale(history: Tensor, season: int, observed: Tensor | None = None) -> Tensor:
    """In-sample mean of `|x_t - x_(t-season)|`, the error of the seasonal naive forecast, of each series.

    Args:
        history: (S, N), everything before the forecast.
        season: Steps of a season; 1 compares neighbours.
        observed: (S, N) bool; a pair counts if both its values were observed. Also how series of different length are padded.

    Returns:
        (S,) float64; NaN where there is no pair.

    Raises:
        DataError: If the history is no longer than a season.
    """
    if not 1 <= season < history.shape[-1]:
        raise DataError(f"MASE: the history has {history.shape[-1]} steps, it must be longer than a season of {season}")
    gap = (history[:, season:] - history[:, :-season]).double().abs()
    return _mean(gap, None if observed is None else observed[:, season:] & observed[:, :-season])


def mase(forecast: Tensor, target: Tensor, scale: Tensor, observed: Tensor | None = None) -> Tensor:
    """`mean over steps of |f - y|, divided by the scale`, of each series.

    Args:
        forecast: (S, H).
        target: (S, H).
        scale: (S,) from `mase_scale`.
        observed: (S, H) bool; None means that everything was.

    Returns:
        (S,) float64; NaN for a series whose history is constant (scale 0) or of which nothing was observed.
    """
    scale = scale.double()
    return _mean((forecast.double() - target.double()).abs(), observed) / torch.where(scale > 0, scale, torch.nan)


def owa(smape_model: float, mase_model: float, smape_reference: float, mase_reference: float) -> float:
    """`0.5 (sMAPE / sMAPE_reference + MASE / MASE_reference)`; below 1 is better than the reference, the competition's is Naive2."""
    return 0.5 * (smape_model / smape_reference + mase_model / mase_reference)


def subset_scores(per_series: Mapping[str, Tensor]) -> dict[str, float]:
    """Group means of a measure: Yearly, Quarterly, Monthly, Others (weekly, daily and hourly pooled), and Average, weighted by number.

    Args:
        per_series: Subset -> (S,) one number per series. Series that have none (NaN) are left out of all means.

    Returns:
        Group -> mean, for the groups that have a series.

    Raises:
        DataError: If a subset is unknown, or no series has a number.
    """
    if unknown := sorted(set(per_series) - set(M4_SUBSETS)):
        raise DataError(f"M4: there is no subset {unknown[0]!r}; there are {', '.join(M4_SUBSETS)}")
    groups = {name: [name] for name in ("Yearly", "Quarterly", "Monthly")} | {
        "Others": list(_OTHERS),
        "Average": list(M4_SUBSETS),
    }
    found = {group: _pooled([per_series[name] for name in names if name in per_series]) for group, names in groups.items()}
    scores = {group: value for group, value in found.items() if value is not None}
    if not scores:
        raise DataError("M4: no series has a score; check that histories are longer than a season and not constant")
    return scores


def _pooled(parts: Sequence[Tensor]) -> float | None:
    values = torch.cat([part.double() for part in parts]) if parts else torch.empty(0)
    values = values[values.isfinite()]
    return float(values.mean()) if len(values) else None


def _mean(values: Tensor, observed: Tensor | None) -> Tensor:
    """Mean over the last dimension of what was observed; NaN where nothing was."""
    if observed is None:
        return values.mean(-1)
    return values.masked_fill(~observed, 0).sum(-1) / observed.sum(-1)
