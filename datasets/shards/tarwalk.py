"""A strict walk over the headers of a tar file, which finds every truncation and every damaged header.

Python's `tarfile` and readers built on it take a damaged or cut header for the end of the archive and lose the rest in
silence. Here the only accepted end is the end marker (two zero blocks, then zeros only).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from modalign.zoo.errors import DataError

BLOCK = 512
MAX_MEMBER_BYTES = 64 * 2**20
_MAX_NAME_BYTES = 2**16
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstandard"}
_REFUSED = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a character device",
    b"4": "a block device",
    b"6": "a named pipe",
    b"S": "a sparse file",
    b"K": "a link with a long name",
}


@dataclass(frozen=True)
class Member:
    """A regular file in a tar: its name, where its header (``start``) and its data (``offset``) begin, its size in bytes."""

    name: str
    start: int
    offset: int
    size: int


def walk(path: Path, max_member_bytes: int = MAX_MEMBER_BYTES) -> Iterator[Member]:
    """Yields the regular files of a tar in order; directories are passed over.

    Raises:
        DataError: With the offset, for anything that is not a complete, undamaged, uncompressed tar of plain files.
    """
    try:
        stream = open(path, "rb")  # noqa: SIM115 (closed below, with the generator)
    except OSError as error:
        raise DataError(f"{path}: cannot be opened ({error.strerror})") from error
    with stream:
        yield from _Walk(stream, path, max_member_bytes).members()


class _Walk:
    """The state of one walk: the stream, its total size and what extension headers said about the next member."""

    def __init__(self, stream: BinaryIO, path: Path, max_member_bytes: int) -> None:
        self.stream, self.path, self.limit = stream, path, max_member_bytes
        self.total = os.fstat(stream.fileno()).st_size
        self.position = 0
        self.long_name: str | None = None
        self.long_size: int | None = None

    def fail(self, reason: str, offset: int | None = None) -> DataError:
        return DataError(f"{self.path}: offset {self.position if offset is None else offset}: {reason}")

    def members(self) -> Iterator[Member]:
        self.check_start()
        start: int | None = None
        while True:
            here = self.position
            header = self.take(BLOCK, "the shard is cut off here (no end marker)")
            if not any(header):
                if start is not None:
                    raise self.fail("an extension header is not followed by a member", here)
                return self.check_end()
            start = here if start is None else start
            name, size, kind = self.parse(header, here)
            if kind in (b"L", b"x", b"g"):
                self.extension(kind, size, here)
                continue
            member = self.member(name, size, kind, start)
            start = self.long_name = self.long_size = None
            if member:
                yield member

    def check_start(self) -> None:
        if self.total == 0:
            raise self.fail("the file is empty")
        head = os.pread(self.stream.fileno(), 6, 0)
        for magic, what in _COMPRESSED.items():
            if head.startswith(magic):
                raise self.fail(f"the shard is {what}-compressed; only plain tars are read (decompress it first)")

    def take(self, count: int, problem: str) -> bytes:
        data = self.stream.read(count)
        if len(data) != count:
            raise self.fail(problem)
        self.position += count
        return data

    def parse(self, header: bytes, here: int) -> tuple[str, int, bytes]:
        """Returns (name, size, type) of a header block after checking its checksum."""
        stored = _number(header[148:156])
        plain = sum(header) - sum(header[148:156]) + 8 * 32
        if stored != plain:
            raise self.fail(f"damaged header (its checksum is {stored}, its bytes give {plain})", here)
        size, kind = _number(header[124:136]), header[156:157]
        if size is None or size < 0:
            raise self.fail("damaged header (the member's size is not a number)", here)
        if kind in _REFUSED:
            raise self.fail(f"the member {_text(header[:100])!r} is {_REFUSED[kind]}; only plain files are read", here)
        name = _text(header[:100])
        if header[257:263] == b"ustar\0" and header[345]:
            name = f"{_text(header[345:500])}/{name}"
        return name, size, kind

    def extension(self, kind: bytes, size: int, here: int) -> None:
        """Reads a GNU long name or a pax header that belongs to the next member."""
        if size > _MAX_NAME_BYTES:
            raise self.fail(f"an extension header claims {size} bytes", here)
        padded = -(-size // BLOCK) * BLOCK
        data = self.take(padded, "the shard is cut off inside an extension header")[:size]
        if kind == b"L":
            self.long_name = _text(data)
            return
        for key, value in self.pax(data, here):
            if key.startswith("GNU.sparse"):
                raise self.fail("the member is a sparse file; only plain files are read", here)
            if key in ("path", "size") and kind == b"g":
                raise self.fail(f"a global header sets {key!r} for all members", here)
            if key == "path":
                self.long_name = value
            elif key == "size":
                if not value.isdecimal():
                    raise self.fail(f"a pax header gives the size {value!r}", here)
                self.long_size = int(value)

    def pax(self, data: bytes, here: int) -> Iterator[tuple[str, str]]:
        """Yields (key, value) of a pax header: records of the form ``LENGTH KEY=VALUE newline``."""
        while data:
            length, _, _ = data.partition(b" ")
            size = int(length) if length.isdigit() and len(length) < 8 else 0
            record = data[:size]
            if size <= len(length) or not record.endswith(b"\n") or b"=" not in record:
                raise self.fail("damaged pax header", here)
            key, _, value = record[len(length) + 1 : -1].partition(b"=")
            yield key.decode("utf-8", "replace"), value.decode("utf-8", "surrogateescape")
            data = data[size:]

    def member(self, name: str, size: int, kind: bytes, start: int) -> Member | None:
        """Steps over a member's data and returns it, or None for a directory."""
        name = self.long_name if self.long_name is not None else name
        size = self.long_size if self.long_size is not None else size
        if kind == b"5":
            return None
        if kind not in (b"0", b"\0", b"7"):
            raise self.fail(f"the member {name!r} has the unknown type {kind!r}", start)
        if size > self.limit:
            raise self.fail(f"the member {name!r} has {size} bytes, more than the limit of {self.limit}", start)
        offset = self.position
        end = offset + -(-size // BLOCK) * BLOCK
        if end > self.total:
            raise self.fail(f"the shard is cut off inside the member {name!r} ({self.total - offset} of {size} bytes)", offset)
        self.stream.seek(end)
        self.position = end
        return Member(name, start, offset, size)

    def check_end(self) -> None:
        second = self.take(BLOCK, "the shard is cut off inside its end marker")
        rest = second + self.stream.read()
        if any(rest):
            raise self.fail("there is data after the end marker (tars cannot be joined with cat)")


def _number(digits: bytes) -> int | None:
    """Reads an octal (or, for big files, base-256) field; None if it is neither."""
    if digits[0] in (0x80, 0xFF):
        return int.from_bytes(digits[1:], "big") if digits[0] == 0x80 else -1
    try:
        return int(digits.strip(b" \0").decode("ascii") or "x", 8)
    except ValueError:
        return None


def _text(data: bytes) -> str:
    """Reads a name up to its first zero byte (undecodable bytes stay visible in messages and fail the name check)."""
    return data.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")
