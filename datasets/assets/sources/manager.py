"""What a package manager's client must be able to do for us, and what all of them share."""

from __future__ import annotations

import fnmatch
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Never

from ..catalogue import Package
from . import SourceUnavailable


class Manager(ABC):
    """The client of one package manager: it downloads, we unpack."""

    @abstractmethod
    def requirement(self, package: Package) -> str:
        """Name and version as the client writes them."""

    @abstractmethod
    def file_pattern(self, package: Package) -> str:
        """Shell pattern of the package file's name."""

    @abstractmethod
    def why_not(self, package: Package) -> str | None:
        """Why the client cannot be run here, or None if it can."""

    @abstractmethod
    def command(self, package: Package, work: Path, got: Path) -> list[str]:
        """The call that puts the package file into ``got``, the folder it is run in; ``work`` is scratch space."""

    @abstractmethod
    def advice(self, packages: Sequence[Package]) -> list[str]:
        """The call a user runs on a machine with a network."""

    @abstractmethod
    def forget(self, package: Package) -> str:
        """The call that deletes the client's cached copy."""

    @abstractmethod
    def explain(self, package: Package, log: str) -> Never:
        """Turns the client's output into one reason.

        Raises:
            SourceUnavailable: With the reason.
            AssetError: If what came is not what it should be.
        """

    @abstractmethod
    def unpack(self, file: Path, members: Sequence[str], folder: Path) -> int:
        """Unpacks the members that match one of the patterns into ``folder`` and returns how many there were."""

    def environment(self, temporary: Path) -> dict[str, str]:
        """Environment variables for the client, besides the user's own."""
        return {"TMPDIR": str(temporary)}


def unavailable(package: str, client: str, errors: Sequence[str]) -> Never:
    """Says that a client could not get a package, with its last error.

    Raises:
        SourceUnavailable: Always.
    """
    last = f" ({errors[-1].strip().rstrip('.')})" if errors else ""
    raise SourceUnavailable(f"{client} could not download {package}{last}")


def wanted(name: str, members: Sequence[str]) -> bool:
    """True if a member matches one of the patterns."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in members)


def unpack_tar(stream: IO[bytes], members: Sequence[str], folder: Path) -> int:
    """Unpacks the plain files of a tar that match; Python's `data` filter keeps every path inside the folder.

    Args:
        stream: The tar, plain or compressed; it is read once, from start to end.
        members: Shell patterns of the members that are used.
        folder: Where they go.

    Returns:
        How many were unpacked.
    """
    count = 0
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=stream, mode="r|*") as archive:
        for member in archive:
            if member.isfile() and wanted(member.name, members):
                archive.extract(member, folder, filter="data")
                count += 1
    return count
