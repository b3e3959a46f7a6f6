"""The bounded cache of remote shards: whole tars by their hash, shared by all processes of a machine.

A tar is downloaded to `HASH.part` under a lock, checked against its size and hash, and renamed; so what is in the cache is complete. Room
is made by deleting what was used longest ago, never a tar that a process has open (they hold a shared lock), never a running download.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from modalign.zoo.errors import DataError

from ..home import cache_home
from ..locks import locked, try_lock
from ..shards.manifest import ShardInfo
from ..shards.verify import remember
from .access import Remote

_CHUNK = 1 << 20


class CacheFull(DataError):
    """Everything in the cache is in use, and a shard more does not fit."""


class ShardCache:
    """Local copies of remote shards.

    Args:
        remote: What may be read, and how large the cache may be.
    """

    def __init__(self, remote: Remote) -> None:
        self.remote, self.folder = remote, cache_home() / "remote" / "shards"

    def path(self, info: ShardInfo) -> Path:
        """Returns where the local copy is, or will be."""
        return self.folder / f"{info.sha256}.tar"

    def open(self, url: str, info: ShardInfo, give_way: Callable[[], bool] = lambda: False) -> int:
        """Returns a descriptor of the local copy, which is fetched if it is not there; while it is open, it is kept.

        Args:
            url: Where the shard is.
            info: Size and hash it must have.
            give_way: Closes one of the caller's own shards to make room; returns False if it has none.

        Raises:
            CacheFull: If what others have open leaves no room.
            DataError: If the shard cannot be fetched, or is not what its manifest says.
        """
        if info.bytes > self.remote.cache_bytes:
            raise DataError(f"{url}: {info.bytes} bytes are more than the whole remote cache; raise data.remote_cache_gb")
        while True:
            try:
                descriptor = os.open(self.path(info), os.O_RDONLY)
            except FileNotFoundError:
                self.fetch(url, info, give_way)
                continue
            if try_lock(descriptor, shared=True) and os.fstat(descriptor).st_nlink:
                status = os.fstat(descriptor)
                os.utime(descriptor, ns=(time.time_ns(), status.st_mtime_ns))  # the time of use; the file's own time stays
                return descriptor
            os.close(descriptor)  # deleted between the two steps

    def fetch(self, url: str, info: ShardInfo, give_way: Callable[[], bool] = lambda: False) -> Path:
        """Downloads a shard if no process has done so yet, and returns the local copy."""
        self._make_folder()
        target, part = self.path(info), self.folder / f"{info.sha256}.part"
        while not target.exists():
            descriptor = os.open(part, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                try_lock(descriptor, wait=True)
                if not _is(descriptor, part):
                    continue  # another process finished or gave up while we waited
                try:
                    self._reserve(descriptor, url, info, give_way)
                    self._download(descriptor, url, info)
                    os.replace(part, target)
                    remember(target, info.sha256)
                except BaseException:
                    part.unlink(missing_ok=True)
                    raise
            finally:
                os.close(descriptor)
        return target

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(
                f"{self.folder}: remote shards are kept here, and it cannot be written ({error.strerror}); "
                "set MODALIGN_HOME to a folder that can"
            ) from error

    @contextmanager
    def received(self, url: str) -> Iterator[tuple[Path, Callable[[ShardInfo], None]]]:
        """Fetches a shard of which nothing is known yet: yields its file and what keeps it once its hash is known.

        Raises:
            DataError: If it cannot be fetched or is larger than the cache.
        """
        self._make_folder()
        part = self.folder / f"{hashlib.sha256(url.encode()).hexdigest()[:32]}-{os.getpid()}.part"
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)

        def keep(info: ShardInfo) -> None:
            with locked(self.folder.parent / "lock"):
                if self._make_room(0):
                    os.replace(part, self.path(info))
                    remember(self.path(info), info.sha256)

        try:
            try_lock(descriptor)
            for attempt in self.remote.attempts(url):
                with attempt:
                    self._receive(descriptor, url)
            yield part, keep
        finally:
            part.unlink(missing_ok=True)
            os.close(descriptor)

    def _receive(self, descriptor: int, url: str) -> None:
        os.ftruncate(descriptor, 0)
        size = 0
        with self.remote.open(url) as stream:
            while chunk := stream.read(_CHUNK):
                if size + len(chunk) > self.remote.cache_bytes:
                    raise DataError(f"{url}: larger than the whole remote cache; raise the limit")
                os.pwrite(descriptor, chunk, size)
                size += len(chunk)

    def _reserve(self, descriptor: int, url: str, info: ShardInfo, give_way: Callable[[], bool]) -> None:
        """Makes room, and takes it by giving the (sparse) file its final size."""
        os.ftruncate(descriptor, 0)
        while True:
            with locked(self.folder.parent / "lock"):
                if self._make_room(info.bytes):
                    os.ftruncate(descriptor, info.bytes)
                    return
            if not give_way():
                raise CacheFull(
                    f"{url}: the remote cache of {self.remote.cache_bytes / 1e9:g} GB is full of shards in use; raise data.remote_cache_gb"
                )

    def _make_room(self, needed: int) -> bool:
        """Deletes what was used longest ago until ``needed`` bytes fit; returns False if what is in use leaves no room."""
        entries = sorted(((path.stat(), path) for path in self.folder.iterdir()), key=lambda entry: entry[0].st_atime_ns)
        total = sum(status.st_size for status, _ in entries)
        stale_first = sorted(entries, key=lambda entry: entry[1].suffix != ".part")  # interrupted downloads go first
        for status, path in stale_first:
            if total + needed <= self.remote.cache_bytes and path.suffix != ".part":
                break
            if status.st_size and _delete_unused(path):
                total -= status.st_size
        return total + needed <= self.remote.cache_bytes

    def _download(self, descriptor: int, url: str, info: ShardInfo) -> None:
        for attempt in self.remote.attempts(url):
            with attempt:
                self._transfer(descriptor, url, info)

    def _transfer(self, descriptor: int, url: str, info: ShardInfo) -> None:
        digest, size = hashlib.sha256(), 0
        with self.remote.open(url) as stream:
            while chunk := stream.read(_CHUNK):
                if size + len(chunk) > info.bytes:
                    raise DataError(f"{url}: shards.json says {info.bytes} bytes, the server sends more; it was changed since")
                os.pwrite(descriptor, chunk, size)
                digest.update(chunk)
                size += len(chunk)
        if size < info.bytes:
            raise EOFError(f"only {size} of {info.bytes} bytes arrived")
        if digest.hexdigest() != info.sha256:
            raise DataError(f"{url}: its SHA-256 is not the one in shards.json; the file on the server was changed or damaged")
        os.fsync(descriptor)


def _is(descriptor: int, path: Path) -> bool:
    """Whether a path still names the open file."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _delete_unused(path: Path) -> bool:
    """Deletes a file that no process has locked."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return True
    try:
        if not try_lock(descriptor):
            return False
        path.unlink(missing_ok=True)
        return True
    finally:
        os.close(descriptor)
