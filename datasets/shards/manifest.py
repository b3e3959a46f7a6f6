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

from ..home import local_path

FORMAT = "modalign-shards/1"
FILE_NAME = "shards.json"
_SHARD_NAME = re.compile(r"[^/\\\x00-\x1f\x7f.][^/\\\x00-\x1f\x7f]*\.tar")
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
        layout: "modalign" for shards of `write_shards`, "webdataset" for shards that another tool wrote.
        language: Language of captions for which none is given (of foreign shards).
        qualified: Keys repeat between shards, so that every key is SHARD/KEY (of foreign shards).
    """

    task: str
    schema: dict[str, dict[str, int]]
    source: str
    shards: list[ShardInfo] = field(default_factory=list)
    layout: str = "modalign"
    language: str = "und"
    qualified: bool = False

    @property
    def samples(self) -> int:
        """Number of samples in all shards."""
        return sum(shard.samples for shard in self.shards)


def counted(number: int, noun: str) -> str:
    """`1 shard`, `2 shards`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def write_manifest(folder: Path, manifest: Manifest) -> Path:
    """Writes `shards.json` atomically (temporary file in the same folder, fsync, rename) and returns its path."""
    shards = [asdict(shard) for shard in manifest.shards]
    head = {"format": FORMAT, "task": manifest.task, "schema": manifest.schema, "source": manifest.source}
    head |= _foreign_head(manifest)
    text = json.dumps({**head, "samples": manifest.samples, "shards": shards}, ensure_ascii=False, indent=1) + "\n"
    return write_atomic(Path(folder) / FILE_NAME, text.encode())


def _foreign_head(manifest: Manifest) -> dict[str, Any]:
    """What is only written for foreign shards."""
    if manifest.layout == "modalign":
        return {}
    return {"layout": manifest.layout, "language": manifest.language, "qualified": manifest.qualified}


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
    return parse_manifest(str(path), path.read_bytes())


def parse_manifest(where: str, data: bytes) -> Manifest:
    """Checks every entry of a manifest; nothing in it is trusted.

    Args:
        where: Its path or address, for messages.
        data: Its bytes.

    Raises:
        DataError: If it is not a manifest of this format.
    """
    try:
        content = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not valid JSON ({error}); pack the folder again") from error
    if not isinstance(content, Mapping) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, Mapping) else type(content).__name__
        raise DataError(f"{where}: format is {found!r}, this version reads {FORMAT!r}")
    for key, kind in {"task": str, "schema": Mapping, "source": str, "samples": int, "shards": list}.items():
        if not isinstance(content.get(key), kind):
            raise DataError(f"{where}: field {key!r} is missing or not a {kind.__name__}")
    for name, counts in content["schema"].items():
        if not (isinstance(counts, Mapping) and all(type(count) is int for count in counts.values())):
            raise DataError(f"{where}: schema.{name} is not a map of names to counts")
    shards = [_shard(where, position, entry) for position, entry in enumerate(content["shards"])]
    manifest = Manifest(content["task"], dict(content["schema"]), content["source"], shards, *_layout(where, content))
    if not shards or manifest.samples != content["samples"]:
        raise DataError(f"{where}: says {content['samples']} samples, its {len(shards)} shards say {manifest.samples}")
    if len({shard.name for shard in shards}) != len(shards):
        raise DataError(f"{where}: a shard is listed twice")
    return manifest


def _layout(where: str, content: Mapping[str, Any]) -> tuple[str, str, bool]:
    layout, language, qualified = (
        content.get("layout", "modalign"),
        content.get("language", "und"),
        content.get("qualified", False),
    )
    if layout not in ("modalign", "webdataset") or not isinstance(language, str) or type(qualified) is not bool:
        raise DataError(
            f"{where}: layout {layout!r}, language {language!r} or qualified {qualified!r} is not one this version knows"
        )
    return layout, language, qualified


def _shard(path: str, position: int, entry: Any) -> ShardInfo:
    """Checks one entry of the list of shards (a name is a plain file name, so it cannot leave the folder)."""
    if not isinstance(entry, Mapping) or not set(entry) >= {"name", "samples", "bytes", "sha256"}:
        raise DataError(f"{path}: shards[{position}] needs name, samples, bytes and sha256")
    name, samples, size, digest = (entry[key] for key in ("name", "samples", "bytes", "sha256"))
    if not (isinstance(name, str) and _SHARD_NAME.fullmatch(name)):
        raise DataError(f"{path}: shards[{position}].name is {name!r}, expected a plain file name that ends with .tar")
    if not all(type(count) is int and 0 < count < 2**63 for count in (samples, size)):  # places in a shard are int64
        raise DataError(f"{path}: {name}: samples and bytes must be positive whole numbers below 2**63; pack the folder again")
    if not (isinstance(digest, str) and _SHA256.fullmatch(digest)):
        raise DataError(f"{path}: {name}: sha256 must be 64 hexadecimal digits")
    return ShardInfo(name, samples, size, digest)
