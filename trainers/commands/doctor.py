"""`modalign doctor`: is this machine fit to train on? Versions that go together, devices, disk, known hazards."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from modalign.zoo.errors import ModalignError

from ..console import console

Level = str  # "ok", "note" or "bad"


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        what: What was looked at.
        level: `ok`, `note` (works, but know it) or `bad`.
        text: What was found, and what to do about it.
    """

    what: str
    level: Level
    text: str


class Unfit(ModalignError):
    """Something must be mended before training."""


def doctor(scan: str | None = None) -> None:
    """Looks at versions, devices, disk and settings that are known to hurt; exit code 2 if something must be mended.

    Args:
        scan: Also look through this folder for files that can run code when they are loaded.
    """
    colours = {"ok": "green", "note": "yellow", "bad": "red"}
    findings = [finding for check in CHECKS for finding in check()]
    findings += list(pickles(Path(scan))) if scan else []
    for finding in findings:
        console.print(f"{finding.level:<4} ", style=colours[finding.level], end="")
        console.print(f"{finding.what:<16} ", end="")
        console.print(finding.text)
    bad = [finding.what for finding in findings if finding.level == "bad"]
    if bad:
        raise Unfit(f"to be mended: {', '.join(bad)}")


def python_and_packages() -> Iterator[Finding]:
    """Versions of what training stands on, and whether each imports."""
    yield Finding("python", "ok" if sys.version_info >= (3, 11) else "bad", sys.version.split()[0])
    for name, module in (
        ("torch", "torch"),
        ("torchvision", "torchvision"),
        ("torchaudio", "torchaudio"),
        ("transformers", "transformers"),
        ("timm", "timm"),
        ("open-clip-torch", "open_clip"),
        ("lightning", "lightning"),
        ("webdataset", "webdataset"),
        ("peft", "peft"),
    ):
        yield _package(name, module)


def _package(name: str, module: str) -> Finding:
    try:
        found = version(name)
    except PackageNotFoundError:
        return Finding(name, "bad", f"not installed; pip install {name}")
    if name == "lightning" and found in ("2.6.2", "2.6.3"):
        return Finding(
            name, "bad", f"{found} was a malicious upload (GHSA-w37p-236h-pfx3): remove it, change the passwords of this account"
        )
    try:
        importlib.import_module(module)
    except Exception as error:  # a broken pair of builds raises anything from OSError to RuntimeError
        return Finding(name, "bad", f"{found} does not import: {str(error).splitlines()[0]}")
    return Finding(name, "ok", found)


def pairs() -> Iterator[Finding]:
    """torch, torchvision and torchaudio are built for each other: minor versions must belong together."""
    try:
        torch_minor, vision_minor = (int(version(name).split(".")[1]) for name in ("torch", "torchvision"))
    except (PackageNotFoundError, ValueError, IndexError):
        return
    fits = vision_minor == torch_minor + 15
    text = f"torch 2.{torch_minor} with torchvision 0.{vision_minor}"
    yield Finding("builds", "ok" if fits else "note", text if fits else f"{text}: expected torchvision 0.{torch_minor + 15}")


def devices() -> Iterator[Finding]:
    """What there is to compute on."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("cpu", "ok", f"{cores} cores, {torch.get_num_threads()} threads per process")
    if not torch.cuda.is_available():
        yield Finding("gpu", "note", "none that torch can see; training runs on the CPU")
        return
    for number in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(number)
        bf16 = "bf16" if torch.cuda.is_bf16_supported() else "no bf16: use precision 32-true"
        yield Finding(f"gpu {number}", "ok", f"{about.name}, {about.total_memory / 2**30:.0f} GiB, {bf16}")


def disk() -> Iterator[Finding]:
    """Room where things are written, and whether it can be written to."""
    from modalign.datasets.home import cache_home

    for what, path in (("this folder", Path.cwd()), ("cache", cache_home()), ("temporary files", Path(tempfile.gettempdir()))):
        there = path
        while not there.exists():
            there = there.parent
        free = shutil.disk_usage(there).free / 2**30
        if not os.access(there, os.W_OK):
            yield Finding(what, "bad", f"{path} cannot be written to; set MODALIGN_HOME or --run_dir to a folder that can")
        else:
            yield Finding(what, "ok" if free > 5 else "note", f"{path}: {free:.1f} GiB free")
    shared = Path("/dev/shm")
    if shared.exists():
        size = shutil.disk_usage(shared).total / 2**30
        fits = size >= 1
        yield Finding("shared memory", "ok" if fits else "note", f"{size:.1f} GiB" + ("" if fits else "; data workers need more"))


def hazards() -> Iterator[Finding]:
    """Settings of the environment that change what is read or run."""
    for name in ("GOPEN_REWRITE", "USE_AIS_FOR", "GOPEN_VERBOSE"):
        if os.environ.get(name):
            yield Finding(name, "note", "is set: other webdataset readers rewrite addresses by it; modalign does not")
    if sys.flags.optimize:
        yield Finding("python -O", "note", "assertions of libraries are off")
    if sys.getfilesystemencoding().lower() != "utf-8":
        yield Finding(
            "locale", "note", f"file names are {sys.getfilesystemencoding()}; set LANG=C.UTF-8 for captions in file names"
        )
    if os.environ.get("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"):
        yield Finding("torch.load", "bad", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD lets checkpoints run code; unset it")
    offline = [name for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") if os.environ.get(name)]
    if offline:
        yield Finding("hub", "note", f"{', '.join(offline)} is set: hf: and timm: names work from the local cache only")


#: endings of files that are pickles, or may be
_PICKLES = (".pkl", ".pickle", ".pyd", ".pt", ".pth", ".ckpt", ".bin", ".joblib", ".npy", ".npz")


def pickles(folder: Path) -> Iterator[Finding]:
    """Files that could run code when something other than modalign loads them."""
    if not folder.is_dir():
        yield Finding("scan", "bad", f"{folder} is not a folder")
        return
    found = sorted(path for path in folder.rglob("*") if path.suffix in _PICKLES and path.is_file())
    for path in found:
        if _is_pickle(path):
            yield Finding(
                "scan", "note", f"{path.relative_to(folder)} holds a pickle: load it with weights_only=True or not at all"
            )
    yield Finding("scan", "ok", f"{len(found)} files with endings that may be pickles looked at in {folder}")


def _is_pickle(path: Path) -> bool:
    """Whether a file is a pickle, or an archive or array with one inside."""
    import zipfile

    with path.open("rb") as stream:
        head = stream.read(256)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith(".pkl") for name in archive.namelist())
    if head.startswith(b"\x93NUMPY"):
        return b"'|O'" in head
    return head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (python_and_packages, pairs, devices, disk, hazards)
