"""Instance norm of windows: every channel of every window to mean 0 and deviation 1, and back.

Source: reversible instance normalisation (RevIN, Kim et al. 2022) as the official codes of CALF and Context-Alignment have it: biased
variance, statistics without gradient, and an inverse that divides by `weight + 1e-10` where there is an affine map.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from ...errors import AssemblyError

Affine = Literal["none", "shared", "per_channel"]
MeanOver = Literal["observed", "all"]
_INVERSE_EPS = 1e-10


class SeriesStatistics(NamedTuple):
    """What the inverse needs.

    Attributes:
        mean: (B, 1, C).
        std: (B, 1, C), never zero.
    """

    mean: Tensor
    std: Tensor


def series_statistics(
    values: Tensor, observed: Tensor | None = None, eps: float = 1e-5, mean_over: MeanOver = "observed"
) -> SeriesStatistics:
    """Mean and `sqrt(biased variance + eps)` over time, of observed entries, without gradient and in float32 at least.

    Args:
        values: (B, L, C).
        observed: (B, L, C) bool; None where everything is.
        eps: Added to the variance, so that a constant channel, and one of which nothing is observed, stay finite.
        mean_over: `observed`, or `all`: the mean divides by L and counts what is missing as zero, as CALF's official imputation does (the
            deviation is over observed entries in both).
    """
    x = values.detach()
    x = x if x.dtype == torch.float64 else x.float()
    if observed is None:
        mean = x.mean(1, keepdim=True)
        return SeriesStatistics(mean, ((x - mean).square().mean(1, keepdim=True) + eps).sqrt())
    count = observed.sum(1, keepdim=True).clamp(min=1)
    mean = x.masked_fill(~observed, 0.0).sum(1, keepdim=True) / (count if mean_over == "observed" else x.shape[1])
    centred = (x - mean).masked_fill(~observed, 0.0)
    return SeriesStatistics(mean, (centred.square().sum(1, keepdim=True) / count + eps).sqrt())


class InstanceNorm(nn.Module):
    """`(x - mean) / std (· w + b)` per window and channel; missing entries become 0, which is the mean.

    Args:
        eps: Added to the variance.
        affine: `none`, one pair (w, b) `shared` by all channels, or one `per_channel`.
        channels: C, for `per_channel`.
        mean_over: See `series_statistics`.

    Raises:
        AssemblyError: If `per_channel` is asked for without a number of channels.
    """

    def __init__(
        self, eps: float = 1e-5, affine: Affine = "none", channels: int | None = None, mean_over: MeanOver = "observed"
    ) -> None:
        super().__init__()
        if affine == "per_channel" and channels is None:
            raise AssemblyError(
                "instance norm: affine: per_channel needs the number of channels; take shared, which works for any"
            )
        self.eps, self.affine = eps, affine
        self.mean_over: MeanOver = mean_over
        size = channels if affine == "per_channel" and channels is not None else 1
        self.weight = None if affine == "none" else nn.Parameter(torch.ones(size))
        self.bias = None if affine == "none" else nn.Parameter(torch.zeros(size))

    def forward(self, values: Tensor, observed: Tensor | None = None) -> tuple[Tensor, SeriesStatistics]:
        """Normalises.

        Args:
            values: (B, L, C).
            observed: (B, L, C) bool; None where everything is.

        Returns:
            (B, L, C), and the statistics for `inverse`.
        """
        statistics = series_statistics(values, observed, self.eps, self.mean_over)
        normalised = (values - statistics.mean) / statistics.std
        if self.weight is not None and self.bias is not None:
            normalised = normalised * self.weight + self.bias
        return (normalised if observed is None else normalised.masked_fill(~observed, 0.0)), statistics

    def inverse(self, values: Tensor, statistics: SeriesStatistics) -> Tensor:
        """(B, H, C) or, of quantiles, (B, H, C, Q) back to the window's own level and scale."""
        mean, std = statistics
        weight: Tensor | None = self.weight
        bias: Tensor | None = self.bias
        if values.ndim == mean.ndim + 1:
            mean, std = mean[..., None], std[..., None]
            weight, bias = (None, None) if weight is None or bias is None else (weight[:, None], bias[:, None])
        if weight is not None and bias is not None:
            values = (values - bias) / (weight + _INVERSE_EPS)
        return values * std + mean
