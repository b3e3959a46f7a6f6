"""Shards on another machine as a `ShardSet` sees them: manifest and indexes are fetched at once, shards when they are first read."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from modalign.zoo.errors import DataError

from ..home import cache_home
from ..shards.index import ShardIndex, index_path, parse_index
from ..shards.locations import Location
from ..shards.manifest import FILE_NAME, Manifest, parse_manifest, write_atomic
from ..shards.verify import verify_shard
from .access import Missing, Remote
from .cache import ShardCache

_log = logging.getLogger(__name__)
_MANIFEST_BYTES = 1 << 28
_INDEX_BYTES = 1 << 28


class RemoteStore:
    """Tars on another machine: manifest and indexes are fetched at once, shards when they are first read.

    Args:
        name: As the user wrote it.
        base: Address of the folder.
        manifest: What the shards hold.
        urls: Address of each shard.
        folder: Where manifest and indexes are kept here.
        remote: What may be read.
    """

    def __init__(self, name: str, manifest: Manifest, urls: Sequence[str], folder: Path, remote: Remote) -> None:
        self.name, self.manifest, self.urls, self.folder, self.remote = name, manifest, list(urls), folder, remote
        self.cache, self.sound = ShardCache(remote), True

    def label(self, shard: int) -> str:
        """Returns how messages name a shard: its address."""
        return self.urls[shard]

    def local(self, shard: int) -> Path:
        """Returns the path of a shard's bytes, which are fetched if they are not here."""
        return self.cache.fetch(self.urls[shard], self.manifest.shards[shard])

    def check(self, shard: int) -> None:
        """Nothing can be said of a remote shard without fetching it."""

    def index(self, shard: int) -> ShardIndex:
        """Returns the member index of a shard, as fetched at the start."""
        info = self.manifest.shards[shard]
        path = index_path(self.folder / info.name)
        index = parse_index(str(path), path.read_bytes(), info)
        if len(index.keys) != info.samples:
            raise DataError(f"{self.label(shard)}: shards.json says {info.samples} samples, its index {len(index.keys)}")
        return index

    def open(self, shard: int, verify: bool, give_way: Callable[[], bool]) -> int:
        """Opens the local copy of a shard; one that was damaged here is fetched again."""
        url, info = self.urls[shard], self.manifest.shards[shard]
        descriptor = self.cache.open(url, info, give_way)
        try:
            if verify:
                verify_shard(self.cache.path(info), info)
            return descriptor
        except DataError as error:
            _log.warning("%s; fetching it again", error)
            os.close(descriptor)
            self.cache.path(info).unlink(missing_ok=True)
        return self.cache.open(url, info, give_way)

    def index_file(self, shard: int) -> Path:
        """Returns where the index of a shard is kept here."""
        return index_path(self.folder / self.manifest.shards[shard].name)

    def check_cache(self, window: int) -> None:
        """Checks that the largest ``window`` shards (and one more, for the next window) fit into the cache."""
        sizes = sorted((shard.bytes for shard in self.manifest.shards), reverse=True)
        needed = sum(sizes[: window + 1])
        if needed > self.remote.cache_bytes:
            raise DataError(
                f"{self.name}: samples are mixed among {window} shards, which take {needed / 1e9:.3g} GB; the remote cache may take "
                f"{self.remote.cache_bytes / 1e9:.3g} GB; raise data.remote_cache_gb"
            )

    def state(self) -> str:
        """A hash of manifest and indexes (the manifest names the hash of every shard)."""
        return hashlib.sha256(f"{self.urls}{self.manifest!r}".encode()).hexdigest()

    def fetch_indexes(self) -> None:
        """Fetches the index files that are not here yet, or of an older version of their shard."""

        def fetch(shard: int) -> None:
            info, url = self.manifest.shards[shard], self.urls[shard].removesuffix(".tar") + ".idx.json"
            path = index_path(self.folder / info.name)
            try:
                parse_index(str(path), path.read_bytes(), info)
            except (OSError, DataError):
                data = self.remote.read(url, _INDEX_BYTES)
                parse_index(url, data, info)
                write_atomic(path, data)

        with ThreadPoolExecutor(8) as pool:
            for _ in pool.map(fetch, range(len(self.urls))):
                pass


def open_remote(location: Location, remote: Remote) -> RemoteStore:
    """Fetches manifest and indexes of remote shards.

    Raises:
        DataError: If they may not be read, are not there, or are not what they should be.
    """
    for url in location.urls:
        remote.check(url)
    base = location.urls[0].rstrip("/") if len(location.urls) == 1 and not location.urls[0].endswith(".tar") else ""
    if not base:
        return _remote_tars(location, remote)
    folder = remote_folder(base)
    try:
        data = remote.read(f"{base}/{FILE_NAME}", _MANIFEST_BYTES)
    except Missing as error:
        if not (folder / FILE_NAME).is_file():
            raise DataError(
                f"{base}: no {FILE_NAME} there; if these are plain webdataset tars, run `modalign data index` on them once"
            ) from error
        data = (folder / FILE_NAME).read_bytes()
        return RemoteStore(location.text, *_with_urls(base, data), folder, remote)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: cannot be written ({error.strerror}); set MODALIGN_HOME to a folder that can") from error
    store = RemoteStore(location.text, *_with_urls(base, data), folder, remote)
    write_atomic(folder / FILE_NAME, data)
    store.fetch_indexes()
    return store


def _with_urls(base: str, data: bytes) -> tuple[Manifest, list[str]]:
    manifest = parse_manifest(f"{base}/{FILE_NAME}", data)
    return manifest, [f"{base}/{shard.name}" for shard in manifest.shards]


def _remote_tars(location: Location, remote: Remote) -> RemoteStore:
    """Remote tars by name: those of one folder that has a manifest, or that were indexed under these names."""
    bases = {url.rpartition("/")[0] for url in location.urls}
    if len(bases) > 1:
        raise DataError(f"{location.text}: remote tars of one source must lie in one folder; make it two sources")
    base = bases.pop()
    folder = remote_folder(location.text)
    if (folder / FILE_NAME).is_file():
        manifest, urls = _with_urls(base, (folder / FILE_NAME).read_bytes())
        return RemoteStore(location.text, manifest, urls, folder, remote)
    try:
        whole = open_remote(Location(base, urls=(base,)), remote)
    except DataError as error:
        raise DataError(f"{error} (`modalign data index '{location.text}'`)") from error
    wanted = {url.rpartition("/")[2] for url in location.urls}
    chosen = [shard for shard in whole.manifest.shards if shard.name in wanted]
    if len(chosen) != len(wanted):
        lost = min(wanted - {shard.name for shard in chosen})
        raise DataError(f"{base}/{lost}: not listed in the {FILE_NAME} there")
    manifest = replace(whole.manifest, shards=chosen)
    return RemoteStore(location.text, manifest, [f"{base}/{shard.name}" for shard in chosen], whole.folder, remote)


def remote_folder(text: str) -> Path:
    """Returns where manifest and indexes of a remote set are kept on this machine."""
    return cache_home() / "remote" / "sets" / hashlib.sha256(text.encode()).hexdigest()[:24]
