"""Random access to the samples of a folder of shards, through the member index."""

from __future__ import annotations

import hashlib
import os
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from modalign.zoo.errors import DataError

from .home import local_path
from .index import ShardIndex, load_index
from .manifest import read_manifest
from .media import REQUIRED, missing, select
from .tarwalk import MAX_MEMBER_BYTES
from .verify import check_size, verify_shard

_OPEN_FILES = 64


@dataclass(frozen=True)
class RawSample:
    """A sample as stored: its key, the path of its shard, its global number in the set, and its members' bytes by extension."""

    key: str
    shard: str
    number: int
    members: dict[str, bytes]


class ShardSet:
    """A folder of shards as a sequence of samples.

    Sizes and indexes are checked here, the SHA-256 of a shard when it is first opened. Instances can be pickled and forked:
    files are opened per process, and read without a shared position.

    Args:
        folder: A folder with `shards.json`, or ``asset:NAME``.
        on_error: "raise": a damaged shard is an error now. "skip": it is an error when one of its samples is read (so that
            the loader can count it against its budget); no sample of it is delivered.
        verify: Check each shard's hash when it is first opened.

    Raises:
        DataError: For anything that is not as the manifest says.
    """

    def __init__(self, folder: str | Path, *, on_error: str = "raise", verify: bool = True) -> None:
        if on_error not in ("raise", "skip"):
            raise DataError(f"on_error is {on_error!r}; it can be 'raise' or 'skip'")
        self.folder = local_path(folder)
        self.manifest = read_manifest(self.folder)
        self.shard_sizes: list[int] = [shard.samples for shard in self.manifest.shards]
        self._ends = list(accumulate(self.shard_sizes))
        self._paths = [self.folder / shard.name for shard in self.manifest.shards]
        self._broken: dict[int, str] = {}
        self._check_sizes(on_error)
        self._indexes = [self._load(position) for position in range(len(self.shard_sizes))]
        self.keys: list[str] = [key for index in self._indexes for key in index.keys]
        self._check_keys()
        self._verify = verify
        self._files: OrderedDict[int, int] = OrderedDict()
        self._pid = os.getpid()
        self._verified: set[int] = set()

    def __len__(self) -> int:
        return self._ends[-1]

    def __repr__(self) -> str:
        return f"ShardSet({str(self.folder)!r}, {len(self)} samples in {len(self.shard_sizes)} shards)"

    @property
    def fingerprint(self) -> str:
        """A hash of the content (of every shard's hash, in order); equal for copies of the same data."""
        text = "\n".join(f"{shard.samples} {shard.sha256}" for shard in self.manifest.shards)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def shard_path(self, shard: int) -> Path:
        """Returns the path of shard number ``shard``."""
        return self._paths[shard]

    def locate(self, number: int) -> tuple[int, int]:
        """Returns (shard number, row in it) of a global sample number."""
        if not 0 <= number < len(self):
            raise DataError(f"{self.folder}: there is no sample number {number}; it has {len(self)}")
        shard = bisect_right(self._ends, number)
        return shard, number - (self._ends[shard] - self.shard_sizes[shard])

    def read(self, number: int, fields: Sequence[str] | None = None) -> RawSample:
        """Reads one sample.

        Args:
            number: Global sample number, 0 to len - 1.
            fields: Members wanted: extensions ("json", "0.jpg") or media ("image"); None = all, [] = only the key.

        Raises:
            DataError: If the shard is damaged or a wanted field is missing.
        """
        shard, row = self.locate(number)
        index, path = self._indexes[shard], self.shard_path(shard)
        if shard in self._broken:
            raise DataError(self._broken[shard])
        places = index.members(row)
        for field in missing(list(places), fields or ()):
            raise DataError(f"{path}: sample {index.keys[row]!r} has no field {field!r} (it has {', '.join(places)})")
        wanted = select(places, fields)
        members = {ext: self._bytes(shard, index.keys[row], ext, *places[ext]) for ext in wanted}
        return RawSample(index.keys[row], str(path), number, members)

    def samples(self, fields: Sequence[str] | None = None) -> Iterator[RawSample]:
        """Yields every sample in order."""
        for number in range(len(self)):
            yield self.read(number, fields)

    def verify(self) -> None:
        """Checks the SHA-256 of every shard now (those already known to be good are not hashed again)."""
        for shard, info in enumerate(self.manifest.shards):
            verify_shard(self.shard_path(shard), info)

    def close(self) -> None:
        """Closes the files this process has open; they are opened again when needed."""
        while self._files:
            os.close(self._files.popitem()[1])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": OrderedDict(), "_pid": -1}

    def __del__(self) -> None:
        if getattr(self, "_files", None) and self._pid == os.getpid():
            self.close()

    def _check_sizes(self, on_error: str) -> None:
        for shard, info in enumerate(self.manifest.shards):
            try:
                check_size(self.shard_path(shard), info)
            except DataError as error:
                if on_error == "raise":
                    raise
                self._broken[shard] = str(error)

    def _load(self, shard: int) -> ShardIndex:
        path, task = self.shard_path(shard), self.manifest.task
        index = load_index(path, self.manifest.shards[shard], task)
        needed = REQUIRED.get(task, ())
        for row in range(len(index.keys)) if needed and not _complete(index, needed) else ():
            for field in missing(list(index.members(row)), needed):
                raise DataError(f"{path}: sample {index.keys[row]!r} has no field {field!r}, which {task} needs")
        return index

    def _check_keys(self) -> None:
        if len(set(self.keys)) == len(self.keys):
            return
        first: dict[str, int] = {}
        for number, key in enumerate(self.keys):
            if key in first:
                one, two = (self.manifest.shards[self.locate(n)[0]].name for n in (first[key], number))
                raise DataError(f"{self.folder}: the key {key!r} appears twice, in {one} and in {two}")
            first[key] = number

    def _file(self, shard: int) -> int:
        """Returns an open file descriptor of a shard, at most `_OPEN_FILES` at a time, never one of another process."""
        if self._pid != os.getpid():
            self._files, self._pid = OrderedDict(), os.getpid()
        if shard in self._files:
            self._files.move_to_end(shard)
            return self._files[shard]
        path = self.shard_path(shard)
        if self._verify and shard not in self._verified:
            try:
                verify_shard(path, self.manifest.shards[shard])
            except DataError as error:
                self._broken[shard] = str(error)
                raise
            self._verified.add(shard)
        while len(self._files) >= _OPEN_FILES:
            os.close(self._files.popitem(last=False)[1])
        self._files[shard] = os.open(path, os.O_RDONLY)
        return self._files[shard]

    def _bytes(self, shard: int, key: str, ext: str, offset: int, size: int) -> bytes:
        data = os.pread(self._file(shard), size, offset) if size <= MAX_MEMBER_BYTES else b""
        if len(data) == size:
            return data
        where = f"{self.shard_path(shard)}: offset {offset}: sample {key!r}, field {ext!r}"
        if size > MAX_MEMBER_BYTES:
            raise DataError(f"{where}: {size} bytes, more than the limit of {MAX_MEMBER_BYTES}")
        raise DataError(f"{where}: only {len(data)} of {size} bytes could be read; the file was cut while in use")


def _complete(index: ShardIndex, needed: Sequence[str]) -> bool:
    """True if every sample has every needed field, seen from the columns alone (the quick way for big sets)."""
    present = index.offsets >= 0
    for field in needed:
        columns = [position for position, ext in enumerate(index.exts) if not missing([ext], [field])]
        if not columns or not present[:, columns].any(axis=1).all():
            return False
    return True
