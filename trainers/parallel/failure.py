"""When another rank is gone or stuck: one sentence instead of a page of the communication library's words."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch.distributed as dist

from modalign.zoo.errors import ModalignError

# A plain RuntimeError is a neighbour's fault only if a communication library says so: a loader, a file system, a loss of one's own may
# time out too.
_LIBRARIES = re.compile(r"\bgloo\b|\bnccl|processgroup|tcpstore")
_GONE = re.compile(
    r"connection (was )?(likely )?closed|connection reset by peer|broken pipe|socket closed|remote process exited|connection refused"
)
_LATE = re.compile(r"timed ?out|timeout")


class RankError(ModalignError):
    """Another process of the run stopped answering, or does not agree with this one."""


@dataclass
class OtherRanks:
    """The ranks that this process started: Lightning's launchers, one per stage, of which the first has them.

    Attributes:
        launchers: The launchers.
    """

    launchers: list[Any] = field(default_factory=list)

    def started_by(self, trainer: Any) -> None:
        """Notes a trainer's launcher, if it has one."""
        if trainer.strategy.launcher is not None:
            self.launchers.append(trainer.strategy.launcher)

    def end(self) -> None:
        """Ends them; a stuck rank listens to nothing less."""
        for launcher in self.launchers:
            launcher.kill(signal.SIGKILL)


@contextmanager
def explained(timeout_s: int) -> Iterator[OtherRanks]:
    """Turns a failed collective into a `RankError`, and ends the ranks this process started; its own errors pass through.

    Args:
        timeout_s: How long ranks wait for each other.

    Raises:
        RankError: Naming this rank, what happened to the others and how to go on.
    """
    others = OtherRanks()
    try:
        yield others
    except RuntimeError as error:
        reason = _reason(error, timeout_s)
        if reason is None:
            raise
        rank = dist.get_rank() if dist.is_initialized() else 0
        others.end()
        raise RankError(
            f"rank {rank}: {reason}. Look at the output of the other ranks for the cause (killed, out of memory, an error of its own); "
            f"the same command continues at the last checkpoint ({str(error).splitlines()[0][:160]})"
        ) from error


def _reason(error: RuntimeError, timeout_s: int) -> str | None:
    text = str(error).lower()
    if not isinstance(error, dist.DistError) and not _LIBRARIES.search(text):
        return None
    if not dist.is_initialized():
        return f"no connection to the other ranks within {timeout_s} s (trainer.timeout_s), or to MASTER_ADDR; not all may be started"
    if _GONE.search(text):
        return f"{_silent()} ended in the middle of a step"
    if _LATE.search(text):
        return f"{_silent()} did not answer within {timeout_s} s (trainer.timeout_s); it is stuck, or its data is slow"
    return None


def _silent(patience: float = 3.0) -> str:
    """The ranks that do not notice, as this one does, that something failed: they are stuck or gone.

    Every rank that notices leaves a note in the store they share. Where the store went with its rank, nobody can be named.
    """
    try:
        store, size, end = dist.distributed_c10d._get_default_store(), dist.get_world_size(), time.monotonic() + patience
        store.set(f"modalign/noticed/{dist.get_rank()}", "")
        silent = list(range(size))
        while silent and time.monotonic() < end:
            silent = [rank for rank in silent if not store.check([f"modalign/noticed/{rank}"])]
            time.sleep(0.1)
    except (RuntimeError, ValueError):
        return "another rank"
    return f"rank {', '.join(map(str, silent))}" if silent else "another rank"
