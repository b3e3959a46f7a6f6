"""How many processes a run has, and which of them this is."""

from __future__ import annotations

import os
from dataclasses import dataclass

from modalign.zoo.errors import RecipeError

from ..recipe import TrainerConfig
from .rank import global_rank


@dataclass(frozen=True)
class World:
    """The processes of a run.

    Attributes:
        rank: This process.
        size: All processes.
        devices: Processes per machine.
        nodes: Machines.
    """

    rank: int
    size: int
    devices: int | str
    nodes: int


def find_world(settings: TrainerConfig) -> World:
    """What a launcher announces, else what the recipe asks for.

    Under torchrun (`LOCAL_WORLD_SIZE`) and SLURM (`SLURM_NTASKS`) the launcher decides; `devices` and `num_nodes` of the recipe need
    not repeat it, but must not contradict it either.

    Raises:
        RecipeError: If they do, or `devices` is no number.
    """
    rank, announced = global_rank(), _announced()
    if announced is not None:
        devices, nodes = announced
        _check(settings, devices, nodes)
        return World(rank, devices * nodes, devices, nodes)
    count = _device_count(settings)
    return World(rank, count * settings.num_nodes, settings.devices, settings.num_nodes)


def _announced() -> tuple[int, int] | None:
    """(processes per machine, machines) of torchrun or SLURM."""
    if "LOCAL_WORLD_SIZE" in os.environ and "WORLD_SIZE" in os.environ and "TORCHELASTIC_RUN_ID" in os.environ:
        local = int(os.environ["LOCAL_WORLD_SIZE"])
        return local, int(os.environ["WORLD_SIZE"]) // local
    # interactive shells of SLURM are one task; what they start is not a job step
    if "SLURM_NTASKS" in os.environ and os.environ.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
        nodes = int(os.environ.get("SLURM_JOB_NUM_NODES", os.environ.get("SLURM_NNODES", "1")))
        return int(os.environ["SLURM_NTASKS"]) // nodes, nodes
    return None


def _check(settings: TrainerConfig, devices: int, nodes: int) -> None:
    for name, asked, there, default in (
        ("devices", settings.devices, devices, 1),
        ("num_nodes", settings.num_nodes, nodes, 1),
    ):
        if asked not in (default, "auto", "-1", -1, there, str(there)):
            raise RecipeError(f"trainer.{name} is {asked}, but the launcher started {there}; leave it out, or make both agree")


def _device_count(settings: TrainerConfig) -> int:
    import torch

    devices = settings.devices
    try:
        automatic = devices in ("auto", "-1", -1)
        return (torch.cuda.device_count() or 1 if settings.accelerator != "cpu" else 1) if automatic else int(devices)
    except ValueError:
        raise RecipeError(f"trainer.devices: {devices!r} is neither a number nor auto") from None
