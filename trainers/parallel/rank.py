"""Which process this is, before any process group exists: as torchrun, SLURM and Lightning's launcher announce it."""

from __future__ import annotations

import os


def global_rank() -> int:
    """Number of this process among all; 0 if nothing says otherwise."""
    for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"):
        if name in os.environ:
            return int(os.environ[name])
    return 0
