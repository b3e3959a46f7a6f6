"""How many processes a run has, and which of them this is."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch

from modalign.zoo.errors import RecipeError

from ..recipe import TrainerConfig
from .rank import by_torchrun, global_rank, in_slurm_step, local_rank


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

    Under torchrun (`LOCAL_WORLD_SIZE`) and in a step of SLURM the launcher decides; `devices` and `num_nodes` of the recipe need not
    repeat it, but must not contradict it either. Without a launcher there is one machine: nothing would say which one this is.

    Raises:
        RecipeError: If they do, `devices` is no number, or there are several machines without a launcher.
    """
    rank, announced = global_rank(), _announced()
    if announced is not None:
        devices, nodes = announced
        _check(settings, devices, nodes)
        return World(rank, devices * nodes, devices, nodes)
    if settings.num_nodes != 1:
        raise RecipeError(
            f"trainer.num_nodes is {settings.num_nodes}, but nothing started this process as one of several machines'; start it on each of "
            "them with torchrun (--nnodes, --node_rank, --master_addr), or on SLURM with the file that modalign launch slurm writes"
        )
    return World(rank, _device_count(settings), settings.devices, 1)


def check_world(trainer: Any, world: World) -> None:
    """Refuses to train where Lightning counts the ranks differently than the data was dealt out.

    Raises:
        RecipeError: With both counts, and the variables that decide.
    """
    if (trainer.global_rank, trainer.world_size) == (world.rank, world.size):
        return
    told = {name: os.environ[name] for name in _TELLING if name in os.environ}
    raise RecipeError(
        f"this process read data as rank {world.rank} of {world.size}, but would train as rank {trainer.global_rank} of "
        f"{trainer.world_size}; unset what is left over of another launcher among {told or 'the environment'}, or start with "
        "torchrun or srun"
    )


_TELLING = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_JOB_NAME")


def own_device(settings: TrainerConfig) -> torch.device | None:
    """The accelerator this process will train on, for work before training; None where that is the CPU."""
    if settings.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return torch.device("cuda", local_rank() % torch.cuda.device_count())
    return None


def _announced() -> tuple[int, int] | None:
    """(processes per machine, machines) of torchrun or SLURM."""
    if by_torchrun():
        local = int(os.environ["LOCAL_WORLD_SIZE"])
        return local, int(os.environ["WORLD_SIZE"]) // local
    if in_slurm_step():
        from .slurm import step_size

        tasks, nodes = step_size()
        return tasks // nodes, nodes
    return None


def _check(settings: TrainerConfig, devices: int, nodes: int) -> None:
    for name, asked, there, default in (
        ("devices", settings.devices, devices, 1),
        ("num_nodes", settings.num_nodes, nodes, 1),
    ):
        if asked not in (default, "auto", "-1", -1, there, str(there)):
            raise RecipeError(f"trainer.{name} is {asked}, but the launcher started {there}; leave it out, or make both agree")


def _device_count(settings: TrainerConfig) -> int:
    devices = settings.devices
    try:
        automatic = devices in ("auto", "-1", -1)
        return (torch.cuda.device_count() or 1 if settings.accelerator != "cpu" else 1) if automatic else int(devices)
    except ValueError:
        raise RecipeError(f"trainer.devices: {devices!r} is neither a number nor auto") from None
