"""Checkpoints that a crash cannot spoil: written beside their place, hashed, synced, then renamed; verified when read.

A checkpoint is a folder: `state.pt` and, written last, `manifest.json` with its size and sha256. The folder is complete exactly if its
name has no `.tmp-` or `.old-` in it, since the rename comes after both files and their folder have reached the disk. The temporary
folder lies in the target folder itself: a rename is atomic only within one file system. `last.json` points to the newest complete one.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO

from modalign.zoo.checkpoints.hashing import file_sha256
from modalign.zoo.errors import ReleaseError

STATE, MANIFEST, LAST = "state.pt", "manifest.json", "last.json"


class AtomicCheckpointIO(CheckpointIO):
    """Lightning's checkpoint plugin with the guarantees above."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Writes a checkpoint; what was there before stays readable until the new one is complete.

        Raises:
            ReleaseError: If it cannot be written (disk full, read-only); older checkpoints are untouched.
        """
        path = Path(path)
        staging = path.with_name(f"{path.name}.tmp-{os.getpid()}")
        try:
            staging.mkdir(parents=True)
            with (staging / STATE).open("wb") as stream:
                torch.save(checkpoint, stream)
                _sync_file(stream)
            about = {"sha256": file_sha256(staging / STATE), "bytes": (staging / STATE).stat().st_size}
            _write_json(staging / MANIFEST, about | {"step": checkpoint.get("global_step")})
            _sync_folder(staging)
            _replace_folder(staging, path)
            _write_json_atomically(path.parent / LAST, {"checkpoint": path.name})
        except OSError as error:
            shutil.rmtree(staging, ignore_errors=True)
            raise ReleaseError(f"cannot write checkpoint {path}: {error}; older checkpoints there are intact") from error

    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Reads a checkpoint after checking size and hash; never runs code from it.

        Raises:
            ReleaseError: If it is incomplete or damaged.
        """
        path = Path(path)
        verify(path)
        return torch.load(path / STATE, map_location=map_location or "cpu", weights_only=True)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Deletes a checkpoint: renamed first, so that a crash in between leaves litter but no half checkpoint."""
        path = Path(path)
        if path.exists():
            doomed = path.with_name(f"{path.name}.tmp-{os.getpid()}")
            os.replace(path, doomed)
            shutil.rmtree(doomed)


def verify(path: Path) -> None:
    """Checks a checkpoint's manifest, size and hash.

    Raises:
        ReleaseError: If anything differs.
    """
    try:
        about = json.loads((path / MANIFEST).read_text())
        size = (path / STATE).stat().st_size
    except (OSError, ValueError) as error:
        raise ReleaseError(f"checkpoint {path} is incomplete ({error})") from None
    if size != about["bytes"] or file_sha256(path / STATE) != about["sha256"]:
        raise ReleaseError(f"checkpoint {path} is damaged: {STATE} has {size} bytes or another sha256 than its manifest says")


def clean(folder: Path) -> None:
    """Puts a checkpoint folder in order after a crash: finishes interrupted replacements, removes temporary folders."""
    if not folder.is_dir():
        return
    for old in folder.glob("*.old-*"):
        target = old.with_name(old.name.split(".old-")[0])
        if target.exists():
            shutil.rmtree(old)
        else:
            os.replace(old, target)
    for litter in folder.glob("*.tmp-*"):
        shutil.rmtree(litter) if litter.is_dir() else litter.unlink()


def newest(folder: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint that verifies, and a warning for each newer one that does not.

    Checkpoints are named `step-00000100`; `best` is not considered.
    """
    clean(folder)
    warnings = []
    for path in sorted(folder.glob("step-*"), reverse=True):
        try:
            verify(path)
        except ReleaseError as error:
            warnings.append(f"{error}; falling back to the one before")
            continue
        return path, warnings
    return None, warnings


def _replace_folder(staging: Path, path: Path) -> None:
    if path.exists():
        old = path.with_name(f"{path.name}.old-{os.getpid()}")
        os.replace(path, old)
        os.replace(staging, path)
        _sync_folder(path.parent)
        shutil.rmtree(old)
    else:
        os.replace(staging, path)
        _sync_folder(path.parent)


def _write_json(path: Path, values: dict[str, Any]) -> None:
    with path.open("w") as stream:
        json.dump(values, stream)
        _sync_file(stream)


def _write_json_atomically(path: Path, values: dict[str, Any]) -> None:
    staging = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    _write_json(staging, values)
    os.replace(staging, path)
    _sync_folder(path.parent)


def _sync_file(stream: Any) -> None:
    stream.flush()
    os.fsync(stream.fileno())


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
