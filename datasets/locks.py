"""Locks between processes, and where a file system has none, doing without."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def try_lock(descriptor: int, *, shared: bool = False, wait: bool = False) -> bool:
    """Locks an open file until its descriptor is closed; returns False if another process holds it.

    Where the file system knows no locks (some network ones), True is returned: the rename that follows is atomic anyway.
    """
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.flock(descriptor, kind | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


@contextmanager
def locked(path: Path, waiting: Callable[[], None] | None = None, patience: float = 5.0) -> Iterator[None]:
    """Holds the lock of a (small, kept) lock file; others wait.

    Args:
        path: The lock file.
        waiting: Called once if another process holds the lock for longer than `patience`, to say why nothing happens.
        patience: Seconds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if waiting is None or not _soon(descriptor, patience):
            if waiting is not None:
                waiting()
            try_lock(descriptor, wait=True)
        yield
    finally:
        with suppress(OSError):  # forked workers may hold the file open still: closing it here would not free the lock
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def _soon(descriptor: int, patience: float) -> bool:
    """Locks within some seconds, or returns False."""
    end = time.monotonic() + patience
    while not try_lock(descriptor):
        if time.monotonic() >= end:
            return False
        time.sleep(0.05)
    return True
