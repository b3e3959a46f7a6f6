"""Checkpoints that a crash cannot spoil: written beside their place, hashed, synced, then renamed; verified when read.

A checkpoint is a folder: `state.pt` and, written last, `manifest.json` with its size and sha256. The folder is complete exactly if its
name has no `.tmp-` or `.old-` in it, since the rename comes after both files and their folder have reached the disk. The temporary
folder lies in the target folder itself: a rename is atomic only within one file system. `last.json` points to the newest complete one.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO

from modalign.zoo.checkpoints.durable import put_in_place, recover, staging_for, write_text
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
        try:
            staging = staging_for(path)
            torch.save(checkpoint, staging / STATE)
            about = {"sha256": file_sha256(staging / STATE), "bytes": (staging / STATE).stat().st_size}
            (staging / MANIFEST).write_text(json.dumps(about | {"step": checkpoint.get("global_step")}))
            put_in_place(staging, path)
            _point_to(path)
        except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
            shutil.rmtree(path.with_name(f"{path.name}.tmp-{os.getpid()}"), ignore_errors=True)
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
        try:
            return torch.load(path / STATE, map_location=map_location or "cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise ReleaseError(
                f"checkpoint {path} holds more than tensors and plain values, so it is none that modalign wrote, and could run code: "
                f"refused ({str(error).splitlines()[0]}); delete it to go on from the one before"
            ) from None

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


def newest(folder: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint that verifies, and a warning for each newer one that does not.

    Checkpoints are named `step-00000100`; `best` is not considered.
    """
    recover(folder)
    warnings = []
    for path in sorted(folder.glob("step-*"), reverse=True):
        try:
            verify(path)
        except ReleaseError as error:
            warnings.append(f"{error}; falling back to the one before")
            continue
        return path, warnings
    return None, warnings


def _point_to(path: Path) -> None:
    """Makes `last.json` name the newest complete checkpoint."""
    write_text(path.parent / LAST, json.dumps({"checkpoint": path.name}))
