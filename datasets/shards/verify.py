"""Hash checks of shards, remembered by path, size and modification time so that an unchanged file is hashed once."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from modalign.zoo.errors import DataError

from ..home import cache_home
from .manifest import ShardInfo, write_atomic
from .tarwalk import walk


def sha256_of(path: Path) -> str:
    """Returns the SHA-256 of a file as hexadecimal digits."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def check_size(tar: Path, info: ShardInfo) -> None:
    """Checks that a shard exists and has the size its manifest says (cheap: no byte of it is read).

    Raises:
        DataError: With the offset of the first damage, where the walk finds one.
    """
    try:
        size = tar.stat().st_size
    except OSError as error:
        raise DataError(f"{tar}: the shard is missing, though shards.json lists it ({error.strerror})") from error
    if size != info.bytes:
        raise DataError(f"{tar}: shards.json says {info.bytes} bytes, the file has {size}{_damage(tar)}")


def verify_shard(tar: Path, info: ShardInfo, *, remembered: bool = True) -> None:
    """Checks size and SHA-256 of a shard.

    Args:
        tar: The shard.
        info: What the manifest says about it.
        remembered: Trust an earlier check of the same file (path, size, modification time and hash).

    Raises:
        DataError: If the shard is not what the manifest says.
    """
    check_size(tar, info)
    if remembered and _recall(tar) == info.sha256:
        return
    digest = sha256_of(tar)
    if digest != info.sha256:
        raise DataError(f"{tar}: its SHA-256 is not the one in shards.json (the file was changed or damaged){_damage(tar)}")
    remember(tar, digest)


def remember(tar: Path, digest: str) -> None:
    """Notes in the cache that ``tar`` as it is now has this hash; a cache that cannot be written is done without."""
    note = _note(tar)
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(note, json.dumps({**_identity(tar), "sha256": digest}).encode())
    except OSError:
        return


def _note(tar: Path) -> Path:
    name = hashlib.sha256(os.fsencode(tar.resolve())).hexdigest()[:32]
    return cache_home() / "verified" / f"{name}.json"


def _identity(tar: Path) -> dict[str, int]:
    status = tar.stat()
    return {"bytes": status.st_size, "mtime_ns": status.st_mtime_ns}


def _recall(tar: Path) -> str | None:
    try:
        note = json.loads(_note(tar).read_bytes())
        digest = note.pop("sha256")
    except (OSError, ValueError, KeyError, AttributeError):
        return None
    return digest if note == _identity(tar) else None


def _damage(tar: Path) -> str:
    """Says where the tar's structure is broken, if it is."""
    try:
        for _ in walk(tar):
            pass
    except DataError as error:
        return f"; first damage: {str(error).removeprefix(f'{tar}: ')}"
    return "; the tar's structure is intact, so bytes inside members or whole samples differ"
