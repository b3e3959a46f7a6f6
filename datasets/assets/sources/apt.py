"""Debian packages, asked of apt; no root is needed, nothing is installed."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Never

from modalign.zoo.errors import AssetError

from ..catalogue import Package
from . import SourceUnavailable
from .manager import Manager, unavailable, unpack_tar


class Apt(Manager):
    """``apt-get download`` and ``dpkg-deb``."""

    def requirement(self, package: Package) -> str:
        """``name=version``."""
        return f"{package.name}={package.version}"

    def file_pattern(self, package: Package) -> str:
        """The package's file name, whatever its architecture (apt writes the colon of an epoch as %3a)."""
        return f"{package.name}_{package.version.replace(':', '%3a')}_*.deb"

    def why_not(self, package: Package) -> str | None:
        """Systems that are not Debian's children have no apt."""
        if shutil.which("apt-get") is None:
            return f"this system has no apt-get to download {self.requirement(package)} with"
        return None

    def command(self, package: Package, work: Path, got: Path) -> list[str]:
        """``apt-get download`` writes into the folder it is run in."""
        return ["apt-get", "download", "-q", "-o", "Acquire::Retries=2", self.requirement(package)]

    def advice(self, packages: Sequence[Package]) -> list[str]:
        """The same for a user."""
        return ["apt-get", "download", *map(self.requirement, packages)]

    def forget(self, package: Package) -> str:
        """Apt keeps no copy of what it downloads this way; its lists may be old."""
        return "none; apt-get update renews the lists"

    def environment(self, temporary: Path) -> dict[str, str]:
        """Messages in English, so that they can be told apart."""
        return super().environment(temporary) | {"LC_ALL": "C"}

    def explain(self, package: Package, log: str) -> Never:
        """Tells an unknown package from another version of it."""
        errors = [line.removeprefix("E: ") for line in log.splitlines() if line.startswith("E: ")]
        if any(error.startswith("Version ") for error in errors):
            raise SourceUnavailable(
                f"apt has no {self.requirement(package)} (another Debian or Ubuntu release carries another version, which may hold "
                "other pictures and is not taken)"
            )
        if any("Unable to locate" in error for error in errors):
            raise SourceUnavailable(f"apt does not know {package.name} (run apt-get update once, as root)")
        unavailable(self.requirement(package), "apt-get", errors)

    def unpack(self, file: Path, members: Sequence[str], folder: Path) -> int:
        """Reads the package's tar from dpkg-deb, which knows its compression."""
        if shutil.which("dpkg-deb") is None:
            raise SourceUnavailable(f"this system has no dpkg-deb to unpack {file.name} with")
        with subprocess.Popen(
            ["dpkg-deb", "--fsys-tarfile", str(file)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as process:
            assert process.stdout is not None
            count = unpack_tar(process.stdout, members, folder)
            process.stdout.read()
        if process.returncode != 0:
            raise AssetError(f"{file.name} cannot be unpacked by dpkg-deb (status {process.returncode})")
        return count
