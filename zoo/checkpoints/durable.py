"""Folders that are there whole or not at all: written beside their place, synced to the disk, then renamed.

The temporary folder lies in the target folder itself, because a rename is atomic only within one file system. A folder `NAME` is complete
exactly if it has no `.tmp-` or `.old-` in its name; `recover` finishes what a crash interrupted.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any


def staging_for(path: Path) -> Path:
    """A fresh, empty folder beside `path` to write into."""
    staging = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    return staging


def put_in_place(staging: Path, path: Path) -> None:
    """Syncs a finished folder and renames it to `path`; what was there before stays readable until then.

    Raises:
        OSError: If a rename fails; what was at `path` is there again.
    """
    sync_tree(staging)
    if not path.exists():
        os.replace(staging, path)
        sync(path.parent)
        return
    old = path.with_name(f"{path.name}.old-{os.getpid()}")
    os.replace(path, old)
    try:
        os.replace(staging, path)
    except BaseException:
        os.replace(old, path)
        raise
    sync(path.parent)
    shutil.rmtree(old)


def recover(parent: Path, pattern: str = "*") -> None:
    """Puts the folders `pattern` of a parent in order after a crash: finishes interrupted replacements, removes litter.

    One process should do it; where two do, what the other has put in order already is none of this one's business.
    """
    for old in parent.glob(f"{pattern}.old-*"):
        target = old.with_name(old.name.split(".old-")[0])
        if target.exists():
            _remove(old)
            continue
        with suppress(FileNotFoundError):
            os.replace(old, target)
    for litter in parent.glob(f"{pattern}.tmp-*"):
        _remove(litter)


def _remove(path: Path) -> None:
    """Deletes a file or folder; that it is gone by then, or goes meanwhile, is fine."""
    if path.is_dir():
        shutil.rmtree(path, onerror=_unless_gone)
    else:
        path.unlink(missing_ok=True)


def _unless_gone(function: Any, path: str, failure: Any) -> None:
    if not isinstance(failure[1], FileNotFoundError):
        raise failure[1]


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 file all or nothing, making its folder if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    try:
        staging.write_text(text, encoding="utf-8")
        sync(staging)
        os.replace(staging, path)
    finally:
        staging.unlink(missing_ok=True)
    sync(path.parent)


def sync_tree(folder: Path) -> None:
    """Forces every file and folder below `folder`, and itself, to the disk."""
    for path in folder.rglob("*"):
        sync(path)
    sync(folder)


def sync(path: Path) -> None:
    """Forces one file or folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
