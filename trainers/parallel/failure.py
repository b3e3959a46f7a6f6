"""When another rank is gone or stuck: one sentence instead of a page of the communication library's words."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch.distributed as dist

from modalign.zoo.errors import ModalignError

_GONE = (
    "connection closed by peer",
    "connection reset by peer",
    "broken pipe",
    "socket closed",
    "remote process exited",
    "connection refused",
)
_LATE = ("timed out", "timeout")


class RankError(ModalignError):
    """Another process of the run stopped answering."""


@contextmanager
def explained(trainer: Any, timeout_s: int) -> Iterator[None]:
    """Turns a failed collective into a `RankError`, and ends the ranks this process started; its own errors pass through.

    Args:
        trainer: Lightning's trainer.
        timeout_s: How long ranks wait for each other.

    Raises:
        RankError: Naming this rank, what happened to the others and how to go on.
    """
    try:
        yield
    except RuntimeError as error:
        reason = _reason(error, timeout_s)
        if reason is None:
            raise
        if trainer.strategy.launcher is not None:
            trainer.strategy.launcher.kill(signal.SIGKILL)  # a stuck rank listens to nothing else
        rank = dist.get_rank() if dist.is_initialized() else 0
        raise RankError(
            f"rank {rank}: {reason}. Look at the output of the other ranks for the cause (killed, out of memory, an error of its own); "
            f"the same command continues at the last checkpoint ({str(error).splitlines()[0][:160]})"
        ) from error


def _reason(error: RuntimeError, timeout_s: int) -> str | None:
    text = str(error).lower()
    if isinstance(error, dist.DistNetworkError):
        return f"no connection to the other ranks within {timeout_s} s (trainer.timeout_s); were all started, is MASTER_ADDR reachable?"
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return None
    if any(sign in text for sign in _GONE):
        return "another rank ended in the middle of a step"
    if any(sign in text for sign in _LATE):
        return f"another rank did not answer within {timeout_s} s (trainer.timeout_s); it is stuck, or its data is slow"
    return None
