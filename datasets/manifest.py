"""`shards.json`: what a folder of shards holds, with the size and hash of every shard.

It is written last and atomically, so a folder is complete if and only if it has this file.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from modalign.zoo.errors import DataError

from .home import local_path

FORMAT = "modalign-shards/1"
FILE_NAME = "shards.json"
_SHARD_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-]*\.tar")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class ShardInfo:
    """One tar file: its name in the folder, number of samples, size in bytes and SHA-256."""

    name: str
    samples: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """The content of `shards.json`.

    Attributes:
        task: What the samples are for, e.g. "image-text"; decides which fields are required.
        schema: ``{"fields": {ext: count}, "languages": {language: captions}}``, as seen when packing.
        source: Free text: where the samples came from.
        shards: The tar files, in order.
    """

    task: str
    schema: dict[str, dict[str, int]]
    source: str
    shards: list[ShardInfo] = field(default_factory=list)

    @property
    def samples(self) -> int:
        """Number of samples in all shards."""
        return sum(shard.samples for shard in self.shards)


def write_manifest(folder: Path, manifest: Manifest) -> Path:
    """Writes `shards.json` atomically (temporary file in the same folder, fsync, rename) and returns its path."""
    shards = [asdict(shard) for shard in manifest.shards]
    head = {"format": FORMAT, "task": manifest.task, "schema": manifest.schema, "source": manifest.source}
    text = json.dumps({**head, "samples": manifest.samples, "shards": shards}, ensure_ascii=False, indent=1) + "\n"
    return write_atomic(Path(folder) / FILE_NAME, text.encode())


def write_atomic(path: Path, data: bytes) -> Path:
    """Writes a file so that it is either absent, old or complete, also after a crash."""
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        with open(temporary, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)
    return path


def sync_folder(folder: Path) -> None:
    """Makes renames in ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_manifest(folder: str | Path) -> Manifest:
    """Reads and checks `shards.json`.

    Raises:
        DataError: If the folder or the file is missing, or the file is not a manifest of this format.
    """
    folder = local_path(folder)
    path = folder / FILE_NAME
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of shards; make one with `modalign data pack SOURCE --out {folder}`")
    if not path.is_file():
        raise DataError(
            f"{folder}: no {FILE_NAME} here, so this is not a complete folder of shards; make one with "
            f"`modalign data pack {folder} --out NEW_FOLDER` (it reads csv, tsv, jsonl, a folder of media, or a folder of plain tars)"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not valid JSON ({error}); pack the folder again") from error
    return _parse(path, content)


def _parse(path: Path, content: Any) -> Manifest:
    """Checks every entry of a manifest; nothing in it is trusted."""
    if not isinstance(content, Mapping) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, Mapping) else type(content).__name__
        raise DataError(f"{path}: format is {found!r}, this version reads {FORMAT!r}")
    for key, kind in {"task": str, "schema": Mapping, "source": str, "samples": int, "shards": list}.items():
        if not isinstance(content.get(key), kind):
            raise DataError(f"{path}: field {key!r} is missing or not a {kind.__name__}")
    shards = [_shard(path, position, entry) for position, entry in enumerate(content["shards"])]
    manifest = Manifest(content["task"], dict(content["schema"]), content["source"], shards)
    if not shards or manifest.samples != content["samples"]:
        raise DataError(f"{path}: says {content['samples']} samples, its {len(shards)} shards say {manifest.samples}")
    if len({shard.name for shard in shards}) != len(shards):
        raise DataError(f"{path}: a shard is listed twice")
    return manifest


def _shard(path: Path, position: int, entry: Any) -> ShardInfo:
    """Checks one entry of the list of shards (a name is a plain file name, so it cannot leave the folder)."""
    if not isinstance(entry, Mapping) or set(entry) < {"name", "samples", "bytes", "sha256"}:
        raise DataError(f"{path}: shards[{position}] needs name, samples, bytes and sha256")
    name, samples, size, digest = (entry[key] for key in ("name", "samples", "bytes", "sha256"))
    if not (isinstance(name, str) and _SHARD_NAME.fullmatch(name)):
        raise DataError(f"{path}: shards[{position}].name is {name!r}, expected a plain file name that ends with .tar")
    if not (type(samples) is int and samples > 0 and type(size) is int and size > 0):
        raise DataError(f"{path}: {name}: samples and bytes must be positive whole numbers")
    if not (isinstance(digest, str) and _SHA256.fullmatch(digest)):
        raise DataError(f"{path}: {name}: sha256 must be 64 hexadecimal digits")
    return ShardInfo(name, samples, size, digest)
