"""Pinball loss: what a quantile head is trained with.

Source: quantile regression (Koenker and Bassett 1978).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .base import Loss, LossValue
from .parts.precision import at_least_float32


def pinball(quantiles: Tensor, target: Tensor, levels: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """The mean over kept entries and levels q of `max(q (y - f_q), (q - 1) (y - f_q))`.

    Args:
        quantiles: f (B, H, C, Q).
        target: y (B, H, C).
        levels: q (Q,).
        mask: (B, H, C) bool, what counts.

    Returns:
        Scalar, float32 at least; at the level 0.5 alone it is half the l1 error; 0 if nothing counts.
    """
    error = at_least_float32(target)[..., None] - at_least_float32(quantiles)
    terms = torch.maximum(levels * error, (levels - 1) * error).mean(-1)
    if mask is None:
        return terms.sum() / max(terms.numel(), 1)
    return torch.where(mask, terms, 0.0).sum() / mask.sum().clamp(min=1)


class Pinball(Loss):
    """Pinball loss of a quantile head, at the head's own levels. Over ranks: local, a mean over samples.

    Args:
        quantiles: Name of the quantiles (B, H, C, Q).
        levels: Name of their levels (Q,), which the model states.
        target: Name of the truth (B, H, C).
        mask: Name of what counts, bool of the same shape, where the batch has it; None counts all.
    """

    def __init__(
        self,
        quantiles: str = "quantiles",
        levels: str = "quantile_levels",
        target: str = "target",
        mask: str | None = "target_observed",
    ) -> None:
        super().__init__()
        self.quantiles, self.levels, self.target, self.mask = quantiles, levels, target, mask

    def inputs(self) -> frozenset[str]:
        """See `Loss.inputs`."""
        return frozenset({self.quantiles, self.levels, self.target})

    def forward(self, outputs: Mapping[str, Any], batch: Mapping[str, Any]) -> LossValue:
        """See `pinball`; the metric is the share of the truth below the highest level."""
        quantiles, target = self.entry(self.quantiles, outputs, batch), self.entry(self.target, outputs, batch)
        levels = self.entry(self.levels, outputs, batch)
        mask = None if self.mask is None else self.optional(self.mask, outputs, batch)
        value = pinball(quantiles, target, levels, mask=mask)
        with torch.no_grad():
            below = (target <= quantiles[..., -1]) if mask is None else (target <= quantiles[..., -1])[mask]
        return LossValue(value, {"below_highest": below.float().mean() if below.numel() else value.new_zeros(())})
