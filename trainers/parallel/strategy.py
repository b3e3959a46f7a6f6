"""The strategy of a run by its name in the recipe."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import nn

from ..recipe import TrainerConfig
from .rank import by_torchrun, in_slurm_step
from .sharded import ShardedStrategy


class SearchingStrategy(DDPStrategy):
    """DDP in which the ranks look, step by step, for trained parameters that no loss reached.

    Plain DDP waits forever for their gradients. What no rank reached keeps no gradient, as on one process; zeros in its place would let
    weight decay shrink it.

    Args:
        timeout: How long a rank waits for the others.
    """

    def __init__(self, timeout: timedelta) -> None:
        super().__init__(timeout=timeout, find_unused_parameters=True)

    def model_to_device(self) -> None:
        """Adds a number that nothing reaches: where a search finds nothing, torch says on every rank that it should be turned off."""
        assert self.model is not None
        self.model.register_parameter("never_reached", nn.Parameter(torch.zeros(())))
        super().model_to_device()


def build_strategy(settings: TrainerConfig, world_size: int) -> Any:
    """A strategy object where a run has several ranks, with the recipe's timeout; else Lightning's name for it.

    Args:
        settings: The recipe's trainer section.
        world_size: Number of ranks.
    """
    timeout = timedelta(seconds=settings.timeout_s)
    if settings.strategy == "fsdp":
        return ShardedStrategy(world_size, timeout, "gloo" if settings.accelerator == "cpu" else None)
    if settings.strategy == "ddp" or (settings.strategy == "auto" and world_size > 1):
        return SearchingStrategy(timeout)
    return settings.strategy


def cluster_plugins() -> list[Any]:
    """What tells Lightning which ranks there are, where its own way of finding out would be wrong: in a job step of SLURM."""
    if by_torchrun() or not in_slurm_step():
        return []
    from .slurm import StepEnvironment

    return [StepEnvironment()]
