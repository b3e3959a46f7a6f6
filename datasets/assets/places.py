"""Where assets live: the cache folder, the users' own data folder, locks and staging."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

CONSOLE = Console(stderr=True, markup=False)


def home() -> Path:
    """Returns modalign's cache folder: ``MODALIGN_HOME``, else ``modalign`` under the user's cache folder (XDG)."""
    if chosen := os.environ.get("MODALIGN_HOME"):
        return Path(chosen).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "modalign"


def assets_root() -> Path:
    """Returns the folder that holds one folder per converted asset."""
    return home() / "assets"


def data_root() -> Path | None:
    """Returns the user's own data folder, ``MODALIGN_DATA``, or None where it is not set."""
    chosen = os.environ.get("MODALIGN_DATA")
    return Path(chosen).expanduser() if chosen else None


@contextlib.contextmanager
def exclusive(name: str) -> Iterator[None]:
    """Holds the lock of one asset against every other process; waits for it, saying so.

    The lock dies with its process, so that a killed download never blocks the next one.
    """
    import fcntl

    folder = assets_root() / ".locks"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            CONSOLE.print(f"another process is fetching {name}; waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def staging(name: str) -> Iterator[Path]:
    """Makes a scratch folder on the cache's own file system and removes it at the end, whatever happened.

    Call it with the lock held: leftovers of killed processes are then surely dead and are removed first.
    """
    parent = assets_root() / ".staging" / name
    shutil.rmtree(parent, ignore_errors=True)
    parent.mkdir(parents=True)
    try:
        yield Path(tempfile.mkdtemp(dir=parent))
    finally:
        shutil.rmtree(parent, ignore_errors=True)


def put_in_place(ready: Path, target: Path, attic: Path) -> None:
    """Renames a finished folder to its final name in one step; an outdated folder of that name goes to the attic first.

    Args:
        ready: The finished folder, in staging.
        target: Where it is to be.
        attic: A path in staging that does not exist yet.
    """
    if target.exists():
        os.replace(target, attic)
    os.replace(ready, target)


def open_to_readers(folder: Path) -> None:
    """Gives every file the permissions a new file gets (some writers make private files; a cache may be shared)."""
    mask = os.umask(0)
    os.umask(mask)
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(0o666 & ~mask)
