"""The order of samples as a pure function of (seed, epoch), the same on every machine and with every library version.

Whole shards are permuted first, then the samples inside each window of some shards: reads stay close together, and the
order still mixes. The permutations sort 64-bit hashes made with plain integer arithmetic, so no random generator whose
stream may change is involved.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from modalign.zoo.errors import DataError


def stable_hash(values: np.ndarray, *label: int | str) -> np.ndarray:
    """Hashes integers with a label: the finaliser of SplitMix64 over ``value + SHA-256(label)``.

    Args:
        values: Integers (N,).
        label: What the hashes are for, e.g. ``("samples", seed, epoch)``; other labels give unrelated hashes.

    Returns:
        uint64 (N,).
    """
    digest = hashlib.sha256("/".join(f"{type(part).__name__}:{part}" for part in label).encode()).digest()
    start, step = int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:16], "little") | 1
    mixed = values.astype(np.uint64) * np.uint64(step) + np.uint64(start)  # odd step: distinct values stay distinct
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed ^ (mixed >> np.uint64(31))


def permutation(count: int, *label: int | str) -> np.ndarray:
    """Returns a permutation of ``range(count)`` (int64) that depends on the label alone."""
    return np.argsort(stable_hash(np.arange(count), *label), kind="stable")


class EpochOrder:
    """The order in which an epoch (one pass) visits the samples of a set; any stretch of it, without making the rest.

    So a run that resumes near the end of an epoch of millions of samples sorts one window of them, not all.

    Args:
        shard_sizes: Samples per shard.
        seed: Any integer.
        epoch: Number of the pass, from 0.
        window: Samples are mixed among so many shards (which stand next to each other after the permutation of shards).
        stream: Number of the source in a mixture, so that equal sources get unrelated orders.

    Raises:
        DataError: If the window is below 1.
    """

    def __init__(self, shard_sizes: Sequence[int], seed: int, epoch: int, window: int = 16, stream: int = 0) -> None:
        if window < 1:
            raise DataError(f"window is {window}; it must be at least 1 shard")
        sizes = np.asarray(shard_sizes, dtype=np.int64)
        self._sizes, self._starts = sizes, np.cumsum(sizes) - sizes
        self._shards = permutation(len(sizes), "shards", seed, epoch, stream)
        self._label, self._window = ("samples", seed, epoch, stream), window
        ends = np.cumsum(sizes[self._shards])
        self._ends = ends[np.minimum(np.arange(window, len(sizes) + window, window), len(sizes)) - 1] if len(sizes) else ends
        self._cached: tuple[int, np.ndarray] | None = None

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def take(self, first: int, end: int) -> np.ndarray:
        """Returns the sample numbers at places ``first`` to ``end - 1``, int64."""
        end = min(end, len(self))
        pieces = [np.zeros(0, dtype=np.int64)]
        number = int(np.searchsorted(self._ends, first, side="right"))
        while first < end:
            start = int(self._ends[number - 1]) if number else 0
            pieces.append(self._order(number)[first - start : end - start])
            first, number = int(self._ends[number]), number + 1
        return np.concatenate(pieces)

    def _order(self, number: int) -> np.ndarray:
        """The samples of one window of shards, mixed."""
        if self._cached is None or self._cached[0] != number:
            shards = np.sort(self._shards[number * self._window : (number + 1) * self._window])
            ranges = [np.arange(self._starts[shard], self._starts[shard] + self._sizes[shard]) for shard in shards]
            samples = np.concatenate(ranges)
            self._cached = number, samples[np.argsort(stable_hash(samples, *self._label), kind="stable")]
        return self._cached[1]


def epoch_order(shard_sizes: Sequence[int], seed: int, epoch: int, window: int = 16, stream: int = 0) -> np.ndarray:
    """Returns the whole order of `EpochOrder`: int64 (sum of sizes,), global sample numbers, each exactly once."""
    order = EpochOrder(shard_sizes, seed, epoch, window, stream)
    return order.take(0, len(order))
