"""Random access to the samples of shards, through the member index."""

from __future__ import annotations

import hashlib
import os
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from modalign.zoo.errors import DataError

from ..decoding.media import REQUIRED, missing, select
from ..remote.access import Remote
from ..sample_error import SampleError
from .captions import UNKNOWN_LANGUAGE
from .index import ShardIndex
from .manifest import counted
from .stores import open_store, remember_opened, shard_names, was_opened
from .tarwalk import MAX_MEMBER_BYTES
from .verify import verify_shard

_OPEN_FILES = 64
_LOADED_INDEXES = 256


@dataclass(frozen=True)
class RawSample:
    """A sample as stored.

    Attributes:
        key: Its key.
        shard: Path or address of its shard.
        number: Its global number in the set.
        members: Its members' bytes by extension.
        language: Language of captions for which none is given.
    """

    key: str
    shard: str
    number: int
    members: dict[str, bytes]
    language: str = UNKNOWN_LANGUAGE


class ShardSet:
    """Shards as a sequence of samples.

    Sizes and indexes are checked here, the SHA-256 of a shard when it is first opened. A set that was checked once and did not
    change since is not walked again: it opens at once, however large, and an index is read when its shard is. Instances can
    be pickled and forked: files are opened per process, and read without a shared position.

    Args:
        spec: A folder with `shards.json`, ``asset:NAME``, a folder of tars that another tool wrote (indexed at first use), tars by
            name (``x/{000..012}.tar``, or a list), or an address; see `locations.py`.
        on_error: "raise": a damaged shard is an error now. "skip": it is an error when one of its samples is read (so that
            the loader can count it against its budget); no sample of it is delivered.
        verify: Check each shard's hash when it is first opened.
        remote: What may be read from other machines; None takes the environment's word (nothing, by default).

    Raises:
        DataError: For anything that is not as the manifest says.
    """

    def __init__(
        self,
        spec: str | Path | Sequence[str | Path],
        *,
        on_error: str = "raise",
        verify: bool = True,
        remote: Remote | None = None,
    ) -> None:
        if on_error not in ("raise", "skip"):
            raise DataError(f"on_error is {on_error!r}; it can be 'raise' or 'skip'")
        self.store = open_store(spec, remote)
        self.folder, self.manifest = self.store.folder, self.store.manifest
        self.shard_sizes: list[int] = [shard.samples for shard in self.manifest.shards]
        self._ends = list(accumulate(self.shard_sizes))
        self._names = shard_names(self.store) if self.manifest.qualified else []
        self._broken: dict[int, str] = {}
        self._keyless: set[int] = set()
        self._indexes: OrderedDict[int, ShardIndex] = OrderedDict()
        self._check_shards(on_error)
        self._verify = verify
        self._files: OrderedDict[int, int] = OrderedDict()
        self._pid = os.getpid()
        self._verified: set[int] = set()

    def __len__(self) -> int:
        return self._ends[-1]

    def __repr__(self) -> str:
        return f"ShardSet({self.store.name!r}, {counted(len(self), 'sample')} in {counted(len(self.shard_sizes), 'shard')})"

    @property
    def fingerprint(self) -> str:
        """A hash of the content (of every shard's hash, in order); equal for copies of the same data."""
        text = "\n".join(f"{shard.samples} {shard.sha256}" for shard in self.manifest.shards)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def caption_field(self) -> str:
        """The field to read for captions: json in shards of ours that have it, else "caption" (txt and json, what there is)."""
        ours = self.manifest.layout == "modalign" and "json" in self.manifest.schema.get("fields", {})
        return "json" if ours else "caption"

    @cached_property
    def keys(self) -> list[str]:
        """Every sample's key, in order (this reads all indexes)."""
        return [self._key(shard, key) for shard in range(len(self.shard_sizes)) for key in self._index(shard).keys]

    def shard_path(self, shard: int) -> Path:
        """Returns the path of shard number ``shard`` (of a remote one, of its local copy, which is fetched)."""
        return self.store.local(shard)

    def shard_label(self, shard: int) -> str:
        """Returns how messages name shard number ``shard``: its path or address."""
        return self.store.label(shard)

    def locate(self, number: int) -> tuple[int, int]:
        """Returns (shard number, row in it) of a global sample number."""
        if not 0 <= number < len(self):
            raise DataError(f"{self.store.name}: there is no sample number {number}; it has {len(self)}")
        shard = bisect_right(self._ends, number)
        return shard, number - (self._ends[shard] - self.shard_sizes[shard])

    def key(self, number: int) -> str:
        """Returns the key of a sample; "" where a damaged shard without index hides it."""
        shard, row = self.locate(number)
        if shard in self._keyless:
            return ""
        try:
            return self._key(shard, self._index(shard).keys[row])
        except DataError:
            self._keyless.add(shard)  # finding out took a walk through the shard
            return ""

    def read(self, number: int, fields: Sequence[str] | None = None) -> RawSample:
        """Reads one sample.

        Args:
            number: Global sample number, 0 to len - 1.
            fields: Members wanted: extensions ("json", "0.jpg") or media ("image"); None = all, [] = only the key.

        Raises:
            DataError: If the shard is damaged or a wanted field is missing.
        """
        shard, row = self.locate(number)
        if shard in self._broken:
            raise DataError(self._broken[shard])
        index, label = self._index(shard), self.shard_label(shard)
        key, places = self._key(shard, index.keys[row]), index.members(row)
        for field in missing(list(places), fields or ()):
            raise SampleError(label, key, "", f"it has no field {field!r} (it has {', '.join(places)})")
        wanted = select(places, fields)
        members = {ext: self._bytes(shard, key, ext, *places[ext]) for ext in wanted}
        return RawSample(key, label, number, members, self.manifest.language)

    def samples(self, fields: Sequence[str] | None = None) -> Iterator[RawSample]:
        """Yields every sample in order."""
        for number in range(len(self)):
            yield self.read(number, fields)

    def check_cache(self, window: int) -> None:
        """Checks that the shards samples are mixed among fit into the remote cache; else each would be fetched again and again.

        Raises:
            DataError: If the cache is too small.
        """
        self.store.check_cache(window)

    def verify(self) -> None:
        """Checks the SHA-256 of every shard now (those already known to be good are not hashed again)."""
        for shard, info in enumerate(self.manifest.shards):
            verify_shard(self.shard_path(shard), info)

    def close(self) -> None:
        """Closes the files this process has open; they are opened again when needed."""
        while self._close_oldest():
            pass

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": OrderedDict(), "_pid": -1}

    def __del__(self) -> None:
        if getattr(self, "_files", None) and self._pid == os.getpid():
            self.close()

    def _check_shards(self, on_error: str) -> None:
        """Sizes always; indexes, required fields and keys unless the set was checked before and is the same."""
        whole = not was_opened(self.store)
        hashes: list[np.ndarray] = []
        for shard in range(len(self.shard_sizes)):
            try:
                self.store.check(shard)
                if whole:
                    hashes.append(self._checked_hashes(shard))
            except DataError as error:
                if on_error == "raise":
                    raise
                self._broken[shard] = str(error)
        if whole:
            found = np.concatenate(hashes) if hashes else np.zeros(0, dtype=np.int64)
            if len(np.unique(found)) != len(found):
                self._find_repeated_key()
            if not self._broken:
                remember_opened(self.store)

    def _checked_hashes(self, shard: int) -> np.ndarray:
        """Checks that every sample of a shard has what the task needs; returns a hash of each key."""
        index, task = self._index(shard), self.manifest.task
        needed = REQUIRED.get(task, ())
        for row in range(len(index.keys)) if needed and not _complete(index, needed) else ():
            for field in missing(list(index.members(row)), needed):
                raise SampleError(self.shard_label(shard), index.keys[row], "", f"it has no field {field!r}, which {task} needs")
        return np.array([hash(self._key(shard, key)) for key in index.keys], dtype=np.int64)

    def _index(self, shard: int) -> ShardIndex:
        """Returns a shard's index, of which the last used are kept."""
        if shard not in self._indexes:
            while len(self._indexes) >= _LOADED_INDEXES:
                self._indexes.popitem(last=False)
            self._indexes[shard] = self.store.index(shard)
        self._indexes.move_to_end(shard)
        return self._indexes[shard]

    def _key(self, shard: int, key: str) -> str:
        return f"{self._names[shard]}/{key}" if self._names else key

    def _find_repeated_key(self) -> None:
        """Names a key that appears twice; equal hashes of different keys are nobody's fault."""
        first: dict[str, int] = {}
        for shard in range(len(self.shard_sizes)):
            for key in self._index(shard).keys if shard not in self._broken else ():
                key = self._key(shard, key)
                if key in first:
                    one, two = (self.manifest.shards[place].name for place in (first[key], shard))
                    raise DataError(f"{self.store.name}: the key {key!r} appears twice, in {one} and in {two}")
                first[key] = shard

    def _file(self, shard: int) -> int:
        """Returns an open file descriptor of a shard, at most `_OPEN_FILES` at a time, never one of another process."""
        if self._pid != os.getpid():
            self._files, self._pid = OrderedDict(), os.getpid()
        if shard in self._files:
            self._files.move_to_end(shard)
            return self._files[shard]
        while len(self._files) >= _OPEN_FILES:
            self._close_oldest()
        try:
            self._files[shard] = self.store.open(shard, self._verify and shard not in self._verified, self._close_oldest)
        except DataError as error:
            self._broken[shard] = str(error)
            raise
        self._verified.add(shard)
        return self._files[shard]

    def _close_oldest(self) -> bool:
        """Closes the file that was used longest ago; returns False if none is open."""
        if not self._files:
            return False
        os.close(self._files.popitem(last=False)[1])
        return True

    def _bytes(self, shard: int, key: str, ext: str, offset: int, size: int) -> bytes:
        data = os.pread(self._file(shard), size, offset) if size <= MAX_MEMBER_BYTES else b""
        if len(data) == size:
            return data
        label = self.shard_label(shard)
        if size > MAX_MEMBER_BYTES:
            raise SampleError(label, key, ext, f"offset {offset}: {size} bytes, more than the limit of {MAX_MEMBER_BYTES}")
        raise SampleError(
            label, key, ext, f"offset {offset}: only {len(data)} of {size} bytes could be read; the file was cut while in use"
        )


def _complete(index: ShardIndex, needed: Sequence[str]) -> bool:
    """True if every sample has every needed field, seen from the columns alone (the quick way for big sets)."""
    present = index.offsets >= 0
    for field in needed:
        columns = [position for position, ext in enumerate(index.exts) if not missing([ext], [field])]
        if not columns or not present[:, columns].any(axis=1).all():
            return False
    return True
