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


def epoch_order(shard_sizes: Sequence[int], seed: int, epoch: int, window: int = 16, stream: int = 0) -> np.ndarray:
    """Returns the order in which an epoch (one pass) visits the samples of a set.

    Args:
        shard_sizes: Samples per shard.
        seed: Any integer.
        epoch: Number of the pass, from 0.
        window: Samples are mixed among so many shards (which stand next to each other after the permutation of shards).
        stream: Number of the source in a mixture, so that equal sources get unrelated orders.

    Returns:
        int64 (sum of sizes,): global sample numbers, each exactly once.
    """
    if window < 1:
        raise DataError(f"window is {window}; it must be at least 1 shard")
    sizes = np.asarray(shard_sizes, dtype=np.int64)
    rank_of_shard = np.empty(len(sizes), dtype=np.int64)
    rank_of_shard[permutation(len(sizes), "shards", seed, epoch, stream)] = np.arange(len(sizes))
    window_of_sample = np.repeat(rank_of_shard // window, sizes)
    hashes = stable_hash(np.arange(sizes.sum()), "samples", seed, epoch, stream)
    return np.lexsort((hashes, window_of_sample))
