"""Quantile head: several quantiles per step, never crossing.

Source: quantile regression (Koenker and Bassett 1978) with sorted outputs (Chernozhukov, Fernández-Val and Galichon 2010: sorting, or
rearrangement, never increases the pinball loss).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..errors import RecipeError

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


class QuantileHead(nn.Module):
    """`sort(W h_c + b)` over Q levels, one map for all channels.

    Args:
        width: D.
        horizon: H.
        levels: Q increasing numbers between 0 and 1, among them 0.5, for the median is the prediction.

    Attributes:
        levels: (Q,), what the loss compares with.

    Raises:
        RecipeError: If the levels are none.
    """

    levels: Tensor

    def __init__(self, width: int, horizon: int, levels: Sequence[float] = LEVELS) -> None:
        super().__init__()
        check_levels(levels)
        self.horizon = horizon
        self.median = list(levels).index(0.5)
        self.linear = nn.Linear(width, horizon * len(levels))
        self.register_buffer("levels", torch.tensor(list(levels)), persistent=False)

    def forward(self, states: Tensor) -> Tensor:
        """(B, C, D) -> (B, H, C, Q), increasing along Q."""
        wide = self.linear(states).unflatten(-1, (self.horizon, -1))
        return wide.transpose(1, 2).sort(-1).values


def check_levels(levels: Sequence[float]) -> None:
    """Refuses levels that are no quantiles.

    Raises:
        RecipeError: Saying what they must be.
    """
    increasing = all(low < high for low, high in zip(levels, list(levels)[1:]))
    if not increasing or not all(0 < level < 1 for level in levels) or 0.5 not in levels:
        raise RecipeError(
            f"model.quantiles: {list(levels)} must increase between 0 and 1 and have 0.5, the prediction, among them"
        )
