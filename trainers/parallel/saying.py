"""Who says an error that every rank has: one of them, whichever comes first.

Ranks that can reach a store they all share (torchrun's, or that of their process group) ask it who was first with that very sentence. Where
there is none yet, an error of the recipe is left to rank 0, since every rank reads the same recipe; anything else may be this rank's own
trouble (its machine, its part of the data) and is said.
"""

from __future__ import annotations

import hashlib
import os
from typing import Any

from modalign.zoo.errors import ModalignError, RecipeError

from .rank import global_rank


def first_to_say(error: ModalignError) -> bool:
    """Whether this process prints an error; False if another rank says the same sentence.

    Args:
        error: What ended this process.
    """
    if not any(name in os.environ for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID")):
        return True
    store = _shared_store()
    if store is None:
        return global_rank() == 0 or not isinstance(error, RecipeError)
    again = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")  # torchrun's store outlives a restart
    key = f"modalign/said/{again}/{hashlib.sha256(str(error).encode()).hexdigest()[:16]}"
    try:
        return bool(store.compare_set(key, "", str(global_rank())) == str(global_rank()).encode())
    except RuntimeError:  # its host is gone
        return True


def _shared_store() -> Any | None:
    """A store that all ranks of the run reach; None where there is none (yet)."""
    from datetime import timedelta

    import torch.distributed as dist

    try:
        if dist.is_initialized():
            store = dist.distributed_c10d._get_default_store()
            store.set_timeout(timedelta(seconds=5))
            return store
        if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
            address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
            return dist.TCPStore(address, port, is_master=False, timeout=timedelta(seconds=5), wait_for_workers=False)
    except (RuntimeError, KeyError, ValueError):
        return None
    return None
