"""AdamW with CLIP's rules for weight decay, and the schedule."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch.optim.lr_scheduler import LambdaLR

from .recipe import StageConfig
from .roles import TrainedParameter


def build_optimizer(trained: Sequence[TrainedParameter], stage: StageConfig, *, fused: bool = True) -> torch.optim.AdamW:
    """AdamW with one group per learning rate and decay; vectors and scalars (biases, norms, scales) are not decayed."""
    groups: dict[tuple[float, bool], list[torch.nn.Parameter]] = {}
    for entry in trained:
        groups.setdefault((entry.lr, entry.parameter.ndim > 1), []).append(entry.parameter)
    settings = [
        {"params": parameters, "lr": lr, "weight_decay": stage.weight_decay if decays else 0.0}
        for (lr, decays), parameters in groups.items()
    ]
    return torch.optim.AdamW(settings, betas=(stage.betas[0], stage.betas[1]), eps=stage.eps, fused=fused)


def build_schedule(optimizer: torch.optim.Optimizer, stage: StageConfig, steps: int) -> LambdaLR:
    """Linear warm-up `(step+1)/warmup`, then half a cosine to zero (or constant), for every group from its own rate."""
    warmup = round(stage.warmup * steps)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        if stage.schedule == "constant":
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))

    return LambdaLR(optimizer, factor)
