"""Where a `ShardSet` gets its manifest, indexes and open files from: a folder, single tars, or another machine."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from modalign.zoo.errors import DataError

from ..home import cache_home
from ..remote.access import Remote, remote_of
from ..remote.store import RemoteStore, open_remote
from .foreign import index_at_first_use, index_tars, indexed_folder, manifest_folder, unique_names, unknown_tars
from .index import ShardIndex, index_path, load_index
from .locations import Location, parse_location
from .manifest import FILE_NAME, Manifest, read_manifest, write_atomic
from .verify import check_size, verify_shard


class LocalStore:
    """Tars on this machine.

    Attributes:
        name: As the user wrote it, for messages.
        folder: Where derived files (features) belong.
        manifest: What the tars hold.
        tars: Their paths.
        known: Where manifest and indexes are: beside the tars, or in the cache.
        whole: These are all shards that the manifest's counts are of.
        sound: False once an index file was found missing or damaged.
    """

    def __init__(
        self, name: str, folder: Path, manifest: Manifest, tars: Sequence[Path], known: Path, whole: bool = True
    ) -> None:
        self.name, self.folder, self.manifest, self.tars, self.known = name, folder, manifest, list(tars), known
        self.sound, self.whole = True, whole
        self._indexes = [index_path(known / shard.name) for shard in manifest.shards]

    def label(self, shard: int) -> str:
        """Returns how messages name a shard: its path."""
        return str(self.tars[shard])

    def local(self, shard: int) -> Path:
        """Returns the path of a shard's bytes."""
        return self.tars[shard]

    def check(self, shard: int) -> None:
        """Checks what can be checked without reading a shard: that it is there, with the right size."""
        check_size(self.tars[shard], self.manifest.shards[shard])

    def index(self, shard: int) -> ShardIndex:
        """Returns the member index of a shard."""
        index, stored = load_index(self.tars[shard], self.manifest.shards[shard], self.manifest.task, self._indexes[shard])
        self.sound = self.sound and stored
        return index

    def open(self, shard: int, verify: bool, give_way: Callable[[], bool]) -> int:
        """Opens a shard for reading after checking its hash."""
        if verify:
            verify_shard(self.tars[shard], self.manifest.shards[shard])
        return os.open(self.tars[shard], os.O_RDONLY)

    def index_file(self, shard: int) -> Path:
        """Returns where the index of a shard is stored."""
        return self._indexes[shard]

    def check_cache(self, window: int) -> None:
        """Local shards need no cache."""

    def state(self) -> str:
        """A hash of the manifest and of the index files as they lie there; it changes if any of them does."""
        parts = [repr(self.manifest)]
        for path in self._indexes:
            try:
                status = path.stat()
                parts.append(f"{path} {status.st_size} {status.st_mtime_ns}")
            except OSError:
                parts.append(f"{path} missing")
        return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest()


Store = LocalStore | RemoteStore


def open_store(spec: str | Path | Sequence[str | Path], remote: Remote | None = None) -> Store:
    """Finds the shards that a user named (`locations.py`); tars of others are indexed at first use.

    Args:
        spec: What the user wrote.
        remote: What may be read from other machines; None takes the environment's word.

    Raises:
        DataError: If there is nothing there, or it may not be read.
    """
    location = parse_location(spec)
    if location.urls:
        return open_remote(location, remote_of() if remote is None else remote)
    if location.tars:
        return _tars_store(location)
    assert location.folder is not None
    return _folder_store(location.text, location.folder)


def _folder_store(name: str, folder: Path) -> LocalStore:
    index_at_first_use(folder)
    known = manifest_folder(folder)
    manifest = read_manifest(known)
    if manifest.layout != "modalign" and (extra := unknown_tars(folder, manifest)):
        raise DataError(f"{folder / extra[0]}: this tar came after the folder was indexed; run `modalign data index {folder}`")
    return LocalStore(name, folder, manifest, [folder / shard.name for shard in manifest.shards], known)


def _tars_store(location: Location) -> LocalStore:
    """Tars by name: some of a folder that has a manifest, else indexed as a set of their own, which the cache keeps."""
    tars, folder = list(location.tars), location.tars[0].parent
    known = manifest_folder(folder)
    if {tar.parent for tar in tars} == {folder} and (known / FILE_NAME).is_file():
        whole = read_manifest(known)
        listed = {shard.name: shard for shard in whole.shards}
        if all(tar.name in listed for tar in tars):
            part = replace(whole, shards=[listed[tar.name] for tar in tars])
            return LocalStore(location.text, folder, part, tars, known, whole=len(tars) == len(whole.shards))
    known = indexed_folder(tars)
    if not (known / FILE_NAME).is_file():
        print(f"{location.text}: indexing {len(tars)} tars once (modalign data index)", flush=True)
        index_tars(tars, known)
    manifest = read_manifest(known)
    places = dict(zip(unique_names(tars), tars, strict=True))
    return LocalStore(location.text, folder, manifest, [places[shard.name] for shard in manifest.shards], known)


def shard_names(store: Store) -> list[str]:
    """Returns a name for each shard that tells it from the others: its file's, with as many folders as that takes."""
    labels = [store.label(shard).removesuffix(".tar").split("/") for shard in range(len(store.manifest.shards))]
    for depth in range(1, max(map(len, labels)) + 1):
        names = ["/".join(parts[-depth:]) for parts in labels]
        if len(set(names)) == len(names):
            return names
    raise DataError(f"{store.name}: a shard is named twice")


def remember_opened(store: Store) -> None:
    """Notes that a set was checked as a whole; it need not be again until manifest or indexes change."""
    note = _note(store)
    if not store.sound:
        return
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(note, json.dumps({"name": store.name, "state": store.state()}).encode())
    except OSError:
        return


def was_opened(store: Store) -> bool:
    """Whether the set was checked as a whole before, and nothing changed since."""
    try:
        return bool(json.loads(_note(store).read_bytes())["state"] == store.state())
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _note(store: Store) -> Path:
    text = "\n".join(store.label(shard) for shard in range(len(store.manifest.shards)))
    return (
        cache_home()
        / "opened"
        / f"{hashlib.sha256(os.fsencode(os.path.abspath('')) + text.encode('utf-8', 'surrogateescape')).hexdigest()[:24]}.json"
    )
