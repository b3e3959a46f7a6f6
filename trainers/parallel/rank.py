"""Which process this is, before any process group exists: as torchrun, SLURM and Lightning's launcher announce it."""

from __future__ import annotations

import os


def global_rank() -> int:
    """Number of this process among all; 0 if nothing says otherwise."""
    if "RANK" in os.environ:
        return int(os.environ["RANK"])
    if in_slurm_step():
        return int(os.environ.get("SLURM_PROCID", "0"))
    return int(os.environ.get("LOCAL_RANK", "0"))  # Lightning's launcher, which knows one machine only: see `find_world`


def local_rank() -> int:
    """Number of this process on its machine."""
    if "LOCAL_RANK" in os.environ:
        return int(os.environ["LOCAL_RANK"])
    return int(os.environ.get("SLURM_LOCALID", "0")) if in_slurm_step() else 0


def by_torchrun() -> bool:
    """Whether torchrun started this process."""
    return all(name in os.environ for name in ("TORCHELASTIC_RUN_ID", "WORLD_SIZE", "LOCAL_WORLD_SIZE"))


def in_slurm_step() -> bool:
    """Whether srun started this process: interactive shells of SLURM are one task, and what they start is not a job step."""
    return "SLURM_NTASKS" in os.environ and os.environ.get("SLURM_JOB_NAME") not in ("bash", "interactive")
