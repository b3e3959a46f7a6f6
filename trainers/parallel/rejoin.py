"""Joining the ranks after torchrun started them again.

The store that torchrun's workers meet at outlives a restart, and so do the addresses that dead ranks left in it: a new rank may read one
and call somebody who is gone (half of the restarts did). So the ranks first agree on a word that no round before had, and meet under it.
"""

from __future__ import annotations

import os
import time
from datetime import timedelta
from typing import Any
from uuid import uuid4

import torch
import torch.distributed as dist

from ..recipe import TrainerConfig
from .failure import RankError
from .rank import by_torchrun
from .world import World, own_device


def rejoin(settings: TrainerConfig, world: World) -> None:
    """Joins the process group where torchrun may start the ranks again; elsewhere Lightning does it.

    Args:
        settings: The recipe's trainer section.
        world: The processes.

    Raises:
        RankError: If a rank does not come within `timeout_s`.
    """
    if not by_torchrun() or dist.is_initialized() or int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")) == 0:
        return
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return  # the first rank hosts the store, a new one in every round
    timeout, device = timedelta(seconds=settings.timeout_s), own_device(settings)
    if device is not None:
        torch.cuda.set_device(device)
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = dist.TCPStore(address, port, world.size, is_master=False, timeout=timeout)
    word = agree_on_word(store, world.rank, world.size, settings.timeout_s)
    backend = "gloo" if device is None else "nccl"
    dist.init_process_group(backend, store=dist.PrefixStore(word, store), rank=world.rank, world_size=world.size, timeout=timeout)


def agree_on_word(store: Any, rank: int, size: int, timeout_s: float) -> str:
    """A word that only the living ranks of this round know, whatever others left in the store.

    Every rank but the first leaves a name of its own; the first answers each name with the word, also a name that takes the place of a
    dead rank's, until every rank has said that it knows the word.

    Args:
        store: What all reach.
        rank: This rank.
        size: Number of ranks.
        timeout_s: How long the first waits for the others.

    Raises:
        RankError: On the first rank, naming those that did not come.
    """
    if rank > 0:
        name = uuid4().hex
        store.set(f"modalign/name/{rank}", name)
        word = str(store.get(f"modalign/answer/{name}").decode())
        store.set(f"modalign/known/{word}/{rank}", "")
        return word
    word, missing, answered = uuid4().hex, set(range(1, size)), set()
    end = time.monotonic() + timeout_s
    while missing:
        for other in sorted(missing):
            if store.check([f"modalign/known/{word}/{other}"]):
                missing.remove(other)
            elif (
                store.check([f"modalign/name/{other}"]) and (name := store.get(f"modalign/name/{other}").decode()) not in answered
            ):
                store.set(f"modalign/answer/{name}", word)
                answered.add(name)
        if missing and time.monotonic() > end:
            raise RankError(
                f"rank 0: ranks {sorted(missing)} did not come within {timeout_s} s (trainer.timeout_s); look at their output"
            )
        time.sleep(0.02)
    return word
