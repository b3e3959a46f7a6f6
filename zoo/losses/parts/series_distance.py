"""Distances between two forecasts, entry by entry or scaled by the series, with a mask.

Source: CALF's code (`utils/cmLoss.py`, and the M4 losses of the Time-Series-Library), whose mask leaves terms out of the sum and not out of
the mean's denominator: `mean_over: all`.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import AssemblyError
from .precision import at_least_float32

Kind = Literal["l1", "smooth_l1", "mse", "smape", "mape", "mase"]
MeanOver = Literal["kept", "all"]


def series_distance(
    first: Tensor,
    second: Tensor,
    kind: Kind = "l1",
    *,
    mask: Tensor | None = None,
    mean_over: MeanOver = "kept",
    insample: Tensor | None = None,
    insample_mask: Tensor | None = None,
    seasonality: int = 1,
) -> Tensor:
    """The mean distance of two forecasts, which is one of the following.

    - l1 `|f - y|`, smooth_l1 (beta 1), mse `(f - y)²`;
    - smape `200 |f - y| / (|f| + |y|)`, the denominator without gradient, 0 where it is 0;
    - mape `|(f - y) / y|`, 0 where y is 0;
    - mase `|f - y| / mean_t |x_t - x_{t - m}|`, one scale per window and channel from the look-back x, 0 where the scale is 0. A pair
      counts in it if both its values are there; with `mean_over: all` all pairs do, zeros of a padding too, as in the reference.

    Args:
        first: f (B, H, C).
        second: y of the same shape.
        kind: Which.
        mask: (B, H, C) bool, what counts.
        mean_over: `kept` divides by the number of entries that count, `all` by the number of all entries (the reference).
        insample: x (B, L, C), for mase.
        insample_mask: (B, L, C) bool, which values of x are there; None means that all are.
        seasonality: m, for mase.

    Returns:
        Scalar, float32 at least; 0 if nothing counts, and then still attached to the graph.

    Raises:
        AssemblyError: If shapes differ, or mase has no look-back, or one no longer than a season.
    """
    _check_alike(first, second, mask)
    first, second = at_least_float32(first), at_least_float32(second)
    terms = _terms(first, second, kind)
    if kind == "mase":
        terms = terms * _per_scale(insample, None if mean_over == "all" else insample_mask, seasonality, first)
    if mask is None or mean_over == "all":
        kept = terms if mask is None else torch.where(mask, terms, 0.0)
        return kept.sum() / max(terms.numel(), 1)
    return torch.where(mask, terms, 0.0).sum() / mask.sum().clamp(min=1)


def _check_alike(first: Tensor, second: Tensor, mask: Tensor | None) -> None:
    """Nothing is broadcast: a forecast of other steps or channels than the truth is a mistake, not a constant one."""
    for what, other in (("another of shape", second), ("a mask of shape", mask)):
        if other is not None and other.shape != first.shape:
            raise AssemblyError(
                f"a forecast of shape {tuple(first.shape)} is compared with {what} {tuple(other.shape)}; both must have the same steps "
                "and channels: check model.horizon and the names of the loss's inputs"
            )


def _terms(first: Tensor, second: Tensor, kind: Kind) -> Tensor:
    if kind == "smooth_l1":
        return F.smooth_l1_loss(first, second, reduction="none")
    if kind == "mse":
        return (first - second).square()
    error = (first - second).abs()
    if kind == "smape":
        return 200 * error * _inverse(first.detach().abs() + second.detach().abs())
    return error * _inverse(second.abs()) if kind == "mape" else error


def _per_scale(insample: Tensor | None, there: Tensor | None, seasonality: int, like: Tensor) -> Tensor:
    if insample is None or not 1 <= seasonality < insample.shape[1]:
        have = "none was given" if insample is None else f"it has {insample.shape[1]} steps"
        raise AssemblyError(
            f"mase scales by the look-back's steps {seasonality} apart (seasonality), and {have}; lower seasonality"
        )
    past = at_least_float32(insample[..., : like.shape[-1]])
    steps = (past[:, seasonality:] - past[:, :-seasonality]).abs()
    if there is None:
        return _inverse(steps.mean(1, keepdim=True))
    there = there[..., : like.shape[-1]]
    pairs = there[:, seasonality:] & there[:, :-seasonality]
    return _inverse(torch.where(pairs, steps, 0.0).sum(1, keepdim=True) / pairs.sum(1, keepdim=True).clamp(min=1))


def _inverse(values: Tensor) -> Tensor:
    """`1 / v`, and 0 where that is not finite, with no trace of it in the gradient."""
    usable = torch.isfinite(values) & (values != 0) & torch.isfinite(1 / values.detach())
    return torch.where(usable, 1 / torch.where(usable, values, 1.0), 0.0)
