"""Checkpoints that a crash cannot spoil: written beside their place, hashed, synced, then renamed; verified when read.

A checkpoint is a folder: `state.pt` and, written last, `manifest.json` with its size and sha256. The folder is complete exactly if its
name has no `.tmp-` or `.old-` in it, since the rename comes after both files and their folder have reached the disk. The temporary
folder lies in the target folder itself: a rename is atomic only within one file system. `last.json` points to the newest complete one of
those a run goes on from, `step-…`; `best` is not among them.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO

from modalign.zoo.checkpoints.durable import put_in_place, recover, staging_for, write_text
from modalign.zoo.checkpoints.hashing import file_sha256
from modalign.zoo.errors import ReleaseError

from .checkpoint_content import wrong_content, wrong_step

STATE, MANIFEST, LAST, BEST = "state.pt", "manifest.json", "last.json", "best"


STEPS = "step-*"


class AtomicCheckpointIO(CheckpointIO):
    """Lightning's checkpoint plugin with the guarantees above.

    Args:
        keep: How many of the latest `step-…` to keep, whatever they were saved for (a plan, a signal); None keeps all.
        resuming: What is loaded must hold all that a run goes on from, not weights alone.
    """

    def __init__(self, keep: int | None = None, *, resuming: bool = False) -> None:
        super().__init__()
        self.keep, self.resuming = keep, resuming

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
            if path.match(STEPS):
                write_text(path.parent / LAST, json.dumps({"checkpoint": path.name}))
                self._prune(path)
        except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
            shutil.rmtree(path.with_name(f"{path.name}.tmp-{os.getpid()}"), ignore_errors=True)
            raise ReleaseError(f"cannot write checkpoint {path}: {error}; older checkpoints there are intact") from error

    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Reads a checkpoint after checking size and hash, and what it holds after that; never runs code from it.

        Raises:
            ReleaseError: If it is incomplete or damaged, or holds something else than its manifest and its use say.
        """
        path = Path(path)
        step = verify(path)
        checkpoint = self._read(path, map_location)
        wrong = wrong_step(checkpoint, step) or (wrong_content(checkpoint) if self.resuming else None)
        if wrong is not None:
            raise ReleaseError(f"checkpoint {path} is none to go on from: {wrong}; delete it to go on from the one before")
        return checkpoint

    def _read(self, path: Path, map_location: Any | None) -> Any:
        try:
            return torch.load(path / STATE, map_location=map_location or "cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise ReleaseError(
                f"checkpoint {path} holds more than tensors and plain values, so it is none that modalign wrote, and could run code: "
                f"refused ({str(error).splitlines()[0]}); delete it to go on from the one before"
            ) from None
        except (EOFError, RuntimeError, ValueError, TypeError, KeyError, AttributeError, IndexError, OSError) as error:
            # its hash is right, so these bytes are what was written: a file that torch cannot take apart fails in many ways
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
            raise ReleaseError(f"checkpoint {path} cannot be read ({reason}); delete it to go on from the one before") from error

    def remove_checkpoint(self, path: str | Path) -> None:
        """Deletes a checkpoint: renamed first, so that a crash in between leaves litter but no half checkpoint."""
        path = Path(path)
        if path.exists():
            doomed = path.with_name(f"{path.name}.tmp-{os.getpid()}")
            os.replace(path, doomed)
            shutil.rmtree(doomed)

    def _prune(self, latest: Path) -> None:
        """Removes old checkpoints, only now that the latest is complete: there is a whole one at every moment.

        Those of later steps are left from before a run fell back to an earlier one, and are made again.
        """
        if self.keep is None:
            return
        there = steps_in(latest.parent)
        later = [path for path in there if step_of(path) > step_of(latest)]
        for path in [*later, *there[len(later) + self.keep :]]:
            self.remove_checkpoint(path)


def verify(path: Path) -> int:
    """Checks a checkpoint's manifest, size and hash; returns the step it says.

    Raises:
        ReleaseError: If anything differs.
    """
    try:
        about = json.loads((path / MANIFEST).read_text())
        wanted, step = (about["bytes"], about["sha256"]), about["step"]
        size = (path / STATE).stat().st_size
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ReleaseError(f"checkpoint {path} is incomplete ({error})") from None
    if size != wanted[0] or file_sha256(path / STATE) != wanted[1]:
        raise ReleaseError(f"checkpoint {path} is damaged: {STATE} has {size} bytes or another sha256 than its manifest says")
    if type(step) is not int:
        raise ReleaseError(f"checkpoint {path} is damaged: its manifest says step {step!r}, which is no number")
    return step


def steps_in(folder: Path) -> list[Path]:
    """The checkpoints `step-00000100…` of a folder that are in their place, the newest first."""
    found = [path for path in folder.glob(STEPS) if not re.search(r"\.(tmp|old)-", path.name)]
    return sorted(found, key=lambda path: (step_of(path), path.name), reverse=True)


def step_of(path: Path) -> int:
    """The step in a checkpoint's name."""
    number = re.match(r"step-(\d+)", path.name)
    return int(number[1]) if number else -1


def newest(folder: Path, *, first: bool = True, patience: float = 60.0) -> tuple[Path | None, list[str]]:
    """The checkpoint a stage goes on from, and a warning for everything that kept it from the newest.

    That is the newest that verifies. Where `best` (kept by validation) is damaged, it is the newest from before the step that `best` was
    made at, so that it is made again; if there is none, the newest after all: better weights may come.

    Args:
        folder: Where the checkpoints are.
        first: Whether this is the process that puts the folder in order after a crash; the others wait until that is done.
        patience: Seconds that the others wait at most.
    """
    recover(folder) if first else _wait_for_order(folder, patience)
    warnings: list[str] = []
    before, fallback = _lost_best(folder), None
    for path in steps_in(folder):
        try:
            verify(path)
        except ReleaseError as error:
            warnings.append(f"{error}; falling back to the one before")
            continue
        if before is None:
            return path, warnings
        if step_of(path) < before:
            return path, [
                *warnings,
                f"checkpoint {folder / BEST} is damaged; going back to before its step, so that it is made again",
            ]
        fallback = fallback or path
    if fallback is not None:
        warnings.append(
            f"checkpoint {folder / BEST} is damaged, and there is none from before its step; better weights may still come"
        )
    return fallback, warnings


def _lost_best(folder: Path) -> int | None:
    """The step that a damaged `best` was made at, 0 if that is lost too; None where there is no `best` or it is whole."""
    if not (folder / BEST).exists():
        return None
    try:
        verify(folder / BEST)
    except ReleaseError:
        try:
            return int(json.loads((folder / BEST / MANIFEST).read_text())["step"])
        except (OSError, ValueError, KeyError, TypeError):
            return 0
    return None


def _wait_for_order(folder: Path, patience: float) -> None:
    """Waits until the first process has finished interrupted replacements: until then a checkpoint may be missing from its place."""
    end = time.monotonic() + patience
    while list(folder.glob("*.old-*")) and time.monotonic() < end:
        time.sleep(0.05)
