"""Token states to one vector per text."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Pooling = Literal["mean", "last", "cls", "weighted_mean", "max", "mean_sqrt"]
POOLINGS: tuple[Pooling, ...] = ("mean", "last", "cls", "weighted_mean", "max", "mean_sqrt")


def pool(states: Tensor, mask: Tensor, pooling: Pooling) -> Tensor:
    """Token states (N, T, D) and mask (N, T) -> (N, D); what is padded, on whichever side, has no say.

    `mean` sum(h_t) / n over the n real tokens; `weighted_mean` sum(t h_t) / sum(t), t = 1 for the first real token (SGPT, MEXA: later
    tokens of a causal model have seen more); `mean_sqrt` sum(h_t) / sqrt(n); `last` and `cls` the last and the first real token;
    `max` the largest value of each dimension.
    """
    rows = torch.arange(len(states), device=states.device)
    if pooling == "cls":
        return states[rows, mask.argmax(1)]
    if pooling == "last":
        positions = torch.arange(mask.shape[1], device=mask.device)
        return states[rows, (mask * positions).argmax(1)]
    if pooling == "max":
        return states.masked_fill(mask.unsqueeze(-1) == 0, float("-inf")).amax(1)
    if pooling == "weighted_mean":
        weights = (mask.cumsum(1) * mask).unsqueeze(-1).to(states.dtype)
        return (states * weights).sum(1) / weights.sum(1).clamp(min=1.0)
    weights = mask.unsqueeze(-1).to(states.dtype)
    count = weights.sum(1).clamp(min=1.0)
    return (states * weights).sum(1) / (count.sqrt() if pooling == "mean_sqrt" else count)
