"""The member index of a shard: which sample has which members, and where their bytes are.

One file per shard, ``000000.idx.json``, two lines of JSON: a head with the tar's size and hash and the hash of the second
line; then columns of numbers, one pair (offset, size) per extension. Reading through it costs a fraction of walking the tar.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from modalign.zoo.errors import DataError

from ..decoding.media import REQUIRED, missing
from .manifest import ShardInfo, write_atomic
from .tarwalk import MAX_MEMBER_BYTES, walk
from .verify import verify_shard

FORMAT = "modalign-index/1"
# the same split as WebDataset: the key ends at the first dot of the file name
_NAME = re.compile(r"((?:[^\x00-\x1f\x7f]*/)?[^./\x00-\x1f\x7f][^./\x00-\x1f\x7f]*)\.([^/\x00-\x1f\x7f]+)")
_log = logging.getLogger(__name__)


@dataclass
class ShardIndex:
    """Where the members of one shard are.

    Attributes:
        keys: The samples' keys, in the order of the tar.
        exts: The extensions that occur.
        offsets: int64 (samples, extensions), byte offset of a member's data, -1 where a sample has no such member.
        sizes: int64 (samples, extensions), bytes.
    """

    keys: list[str]
    exts: list[str]
    offsets: np.ndarray
    sizes: np.ndarray

    def members(self, row: int) -> dict[str, tuple[int, int]]:
        """Returns ``{extension: (offset, size)}`` of sample ``row``."""
        pairs = zip(self.exts, self.offsets[row].tolist(), self.sizes[row].tolist(), strict=True)
        return {ext: (offset, size) for ext, offset, size in pairs if offset >= 0}


def index_path(tar: Path) -> Path:
    """Returns the index file of a shard: ``000000.tar`` -> ``000000.idx.json``."""
    return tar.with_name(tar.name.removesuffix(".tar") + ".idx.json")


def split_name(tar: Path, name: str, offset: int) -> tuple[str, str]:
    """Splits a member's name into key and extension (``a/b.0.jpg`` -> ``a/b``, ``0.jpg``).

    Raises:
        DataError: If the name has no key, no extension, an upper-case extension, or leaves its folder.
    """
    where = f"{tar}: offset {offset}: member {name!r}"
    match = _NAME.fullmatch(name)
    if not match:
        raise DataError(f"{where} is not of the form KEY.EXTENSION")
    key, ext = match[1], match[2]
    if key.startswith("/") or ".." in key.split("/"):
        raise DataError(f"{where}: a key may not be an absolute path nor contain '..'")
    if ext != ext.lower():
        raise DataError(f"{where}: sample {key!r} has the upper-case extension {ext!r}; write {ext.lower()!r}")
    try:
        name.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(f"{where} is not valid UTF-8") from error
    return key, ext


def _groups(tar: Path, max_member_bytes: int) -> Iterator[tuple[str, int, dict[str, tuple[int, int]]]]:
    """Yields (key, offset of the first header, members) for each run of members with one key."""
    key: str | None = None
    start, members = 0, dict[str, tuple[int, int]]()
    for member in walk(tar, max_member_bytes):
        name, ext = split_name(tar, member.name, member.start)
        if name != key:
            if key is not None:
                yield key, start, members
            key, start, members = name, member.start, {}
        if ext in members:
            raise DataError(f"{tar}: offset {member.start}: sample {name!r} has the member {ext!r} twice")
        members[ext] = (member.offset, member.size)
    if key is not None:
        yield key, start, members


def build_index(tar: Path, task: str = "", max_member_bytes: int = MAX_MEMBER_BYTES) -> ShardIndex:
    """Walks a shard strictly and returns its index.

    Args:
        tar: The shard.
        task: If known ("image-text" ...), every sample must have the fields of that task.
        max_member_bytes: Cap on the size of one member.

    Raises:
        DataError: Naming shard, offset and key, for damage, a duplicate key or member, interleaved keys or a missing field.
    """
    seen: dict[str, dict[str, tuple[int, int]]] = {}
    for key, start, members in _groups(tar, max_member_bytes):
        if key in seen:
            shared = sorted(set(seen[key]) & set(members))
            what = f"appears twice (both have {shared[0]!r})" if shared else "is interleaved with other samples"
            raise DataError(f"{tar}: offset {start}: sample {key!r} {what}; the members of a sample must stand together")
        lacking = missing(list(members), REQUIRED.get(task, ()))
        if lacking:
            raise DataError(
                f"{tar}: offset {start}: sample {key!r} has no field {lacking[0]!r}, which {task} needs (it has {sorted(members)})"
            )
        seen[key] = members
    if not seen:
        raise DataError(f"{tar}: offset 0: the shard has no samples")
    return _columns(seen)


def _columns(samples: dict[str, dict[str, tuple[int, int]]]) -> ShardIndex:
    exts = sorted({ext for members in samples.values() for ext in members})
    table = np.array([[members.get(ext, (-1, 0)) for ext in exts] for members in samples.values()], dtype=np.int64)
    return ShardIndex(list(samples), exts, table[:, :, 0].copy(), table[:, :, 1].copy())


def write_index(tar: Path, index: ShardIndex, info: ShardInfo) -> Path:
    """Writes the index file of a shard (deterministic bytes, atomic)."""
    columns = {"keys": index.keys, "exts": index.exts, "offsets": index.offsets.T.tolist(), "sizes": index.sizes.T.tolist()}
    body = json.dumps(columns, ensure_ascii=False, separators=(",", ":")).encode()
    head = {"format": FORMAT, "bytes": info.bytes, "sha256": info.sha256, "columns_sha256": hashlib.sha256(body).hexdigest()}
    return write_atomic(index_path(tar), json.dumps(head).encode() + b"\n" + body + b"\n")


def read_index(tar: Path, info: ShardInfo, path: Path | None = None) -> ShardIndex:
    """Reads the index file of a shard.

    Args:
        tar: The shard.
        info: What the manifest says about it.
        path: The index file, if it does not lie beside the shard.

    Raises:
        DataError: If it is missing, damaged, or of another tar than ``info`` describes.
    """
    path = path or index_path(tar)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: the index is missing ({error.strerror})") from error
    return parse_index(str(path), data, info)


def parse_index(where: str, data: bytes, info: ShardInfo) -> ShardIndex:
    """Checks the bytes of an index file; nothing in them is trusted.

    Args:
        where: Its path or address, for messages.
        data: Its bytes.
        info: What the manifest says about the shard.

    Raises:
        DataError: If it is damaged, or of another tar than ``info`` describes.
    """
    try:
        head_line, body = data.rstrip(b"\n").split(b"\n")
        head = json.loads(head_line)
        if head["format"] != FORMAT or head["columns_sha256"] != hashlib.sha256(body).hexdigest():
            raise DataError(f"{where}: the index is damaged")
        if (head["bytes"], head["sha256"]) != (info.bytes, info.sha256):
            raise DataError(f"{where}: the index is of another shard than shards.json lists as {info.name}")
        columns = json.loads(body)
        keys, exts = columns["keys"], columns["exts"]
        offsets, sizes = (np.array(columns[name]).T for name in ("offsets", "sizes"))
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
        raise DataError(f"{where}: the index is damaged ({type(error).__name__}: {error})") from error
    if not all(isinstance(names, list) and all(isinstance(name, str) for name in names) for names in (keys, exts)):
        raise DataError(f"{where}: the index is damaged (keys and exts must be lists of texts)")
    if any(table.dtype != np.int64 or table.shape != (len(keys), len(exts)) for table in (offsets, sizes)):
        raise DataError(f"{where}: the index is damaged (offsets and sizes must be whole numbers, one per key and extension)")
    end = min(info.bytes, np.iinfo(np.int64).max)  # numpy compares with nothing larger
    outside = (sizes < 0) | (sizes > end) | (offsets < -1) | (offsets > end - sizes)
    if outside.any():
        raise DataError(f"{where}: the index is damaged (a member would lie outside of its shard)")
    return ShardIndex(keys, exts, offsets, sizes)


def load_index(tar: Path, info: ShardInfo, task: str, path: Path | None = None) -> tuple[ShardIndex, bool]:
    """Returns a shard's index, and whether it was as stored.

    A missing or damaged one is made again from the tar if the tar is what its hash says. The index is derived data, so nothing
    can be lost by this; it is said in the log.
    """
    stored = True
    try:
        index = read_index(tar, info, path)
    except DataError as error:
        verify_shard(tar, info)
        _log.warning("%s; indexing the shard again (in memory only)", error)
        index, stored = build_index(tar, task), False
    if len(index.keys) != info.samples:
        raise DataError(f"{tar}: shards.json says {info.samples} samples, the shard has {len(index.keys)}")
    return index, stored
