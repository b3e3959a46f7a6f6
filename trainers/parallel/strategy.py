"""The strategy of a run by its name in the recipe."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from ..recipe import TrainerConfig
from .rank import by_torchrun, in_slurm_step


def build_strategy(settings: TrainerConfig, world_size: int) -> Any:
    """A strategy object where a run has several ranks, with the recipe's timeout; else Lightning's name for it.

    Args:
        settings: The recipe's trainer section.
        world_size: Number of ranks.
    """
    from lightning.pytorch.strategies import DDPStrategy

    from .sharded import ShardedStrategy

    timeout = timedelta(seconds=settings.timeout_s)
    if settings.strategy == "fsdp":
        return ShardedStrategy(world_size, timeout, "gloo" if settings.accelerator == "cpu" else None)
    if settings.strategy == "ddp" or (settings.strategy == "auto" and world_size > 1):
        return DDPStrategy(timeout=timeout)
    return settings.strategy


def cluster_plugins() -> list[Any]:
    """What tells Lightning which ranks there are, where its own way of finding out would be wrong: in a job step of SLURM."""
    if by_torchrun() or not in_slurm_step():
        return []
    from .slurm import StepEnvironment

    return [StepEnvironment()]
