"""Locks between processes, and where a file system has none, doing without."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
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
def locked(path: Path) -> Iterator[None]:
    """Holds the lock of a (small, kept) lock file; others wait."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try_lock(descriptor, wait=True)
        yield
    finally:
        os.close(descriptor)
