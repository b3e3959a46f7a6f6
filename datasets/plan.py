"""Which samples make up which batch: a pure function of (seed, epoch), whatever the number of ranks and workers.

An epoch is `samples_per_epoch` draws. Every source gets the same number of draws in every epoch (its share by weight), and
goes on where it stopped: its p-th pass over its samples has its own order. So what an epoch holds follows from its number
alone, and there is no state but (epoch, batch).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from modalign.zoo.errors import DataError

from .order import epoch_order, permutation

T = TypeVar("T")


class Draw(NamedTuple):
    """One place in a batch: the source, the sample's number in it, and the place's number in the epoch."""

    source: int
    sample: int
    draw: int


class BatchPlan:
    """Plans the batches of training.

    Args:
        sources: For each source its shard sizes, as in `ShardSet.shard_sizes`.
        weights: Share of each source (any positive numbers); None = by size, which makes an epoch one pass over everything.
        batch_size: Samples of a step over all ranks together.
        seed: Seed of every order.
        samples_per_epoch: Draws of an epoch; None = the sum of the sources' sizes.
        drop_last: Drop the last batch of an epoch if it is incomplete (only that one).
        window: Shards among which samples are mixed, see `epoch_order`.

    Raises:
        DataError: If the numbers do not make at least one batch, or a source would never be drawn.
    """

    def __init__(
        self,
        sources: Sequence[Sequence[int]],
        weights: Sequence[float] | None,
        batch_size: int,
        seed: int,
        samples_per_epoch: int | None = None,
        drop_last: bool = True,
        window: int = 16,
    ) -> None:
        self.sources = [list(sizes) for sizes in sources]
        self.sizes = [sum(sizes) for sizes in self.sources]
        self.batch_size, self.seed, self.drop_last, self.window = batch_size, seed, drop_last, window
        if not self.sizes or min(self.sizes) < 1 or batch_size < 1:
            raise DataError(
                f"a plan needs sources with samples and a batch_size of at least 1 (sizes {self.sizes}, {batch_size})"
            )
        self.samples_per_epoch = sum(self.sizes) if samples_per_epoch is None else samples_per_epoch
        self.weights = [float(w) for w in (self.sizes if weights is None else weights)]
        if len(self.weights) != len(self.sizes) or not all(0 < w < float("inf") for w in self.weights):
            raise DataError(f"weights {self.weights}: one positive number for each of the {len(self.sizes)} sources is needed")
        self.draws = apportion(self.samples_per_epoch, self.weights)
        if min(self.draws) < 1:
            empty = self.draws.index(min(self.draws))
            raise DataError(f"source {empty} gets no sample in an epoch of {self.samples_per_epoch}; raise its weight")
        if len(self) < 1:
            raise DataError(
                f"batch_size {batch_size} is more than the {self.samples_per_epoch} samples of an epoch, so there is no full batch"
            )
        self._cached: tuple[int, np.ndarray, np.ndarray] | None = None

    def __len__(self) -> int:
        full, rest = divmod(self.samples_per_epoch, self.batch_size)
        return full + (1 if rest and not self.drop_last else 0)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cached": None}

    def epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns (source of every draw, sample number of every draw) of an epoch, int64 (samples_per_epoch,) each."""
        if self._cached is None or self._cached[0] != epoch:
            self._cached = (epoch, *self._plan(epoch))
        return self._cached[1], self._cached[2]

    def batch(self, epoch: int, batch: int) -> list[Draw]:
        """Returns the draws of a global batch.

        Raises:
            DataError: If the epoch has no such batch.
        """
        if not 0 <= batch < len(self):
            raise DataError(f"there is no batch {batch}; an epoch has {len(self)}")
        first = batch * self.batch_size
        return self.draw_range(epoch, first, min(first + self.batch_size, self.samples_per_epoch))

    def draw_range(self, epoch: int, first: int, end: int) -> list[Draw]:
        """Returns the draws ``first`` to ``end - 1`` of an epoch, across batches."""
        of_source, samples = (column[first:end].tolist() for column in self.epoch(epoch))
        return [
            Draw(source, sample, first + place) for place, (source, sample) in enumerate(zip(of_source, samples, strict=True))
        ]

    def _plan(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        if len(self.sizes) == 1:
            return np.zeros(self.samples_per_epoch, dtype=np.int64), self._source_draws(0, epoch)
        of_source = np.repeat(np.arange(len(self.draws)), self.draws)
        of_source = of_source[permutation(self.samples_per_epoch, "mixture", self.seed, epoch)]
        samples = np.empty(self.samples_per_epoch, dtype=np.int64)
        for source in range(len(self.draws)):
            samples[of_source == source] = self._source_draws(source, epoch)
        return of_source, samples

    def _source_draws(self, source: int, epoch: int) -> np.ndarray:
        """Returns the samples a source gives in an epoch: the next stretch of its endless row of passes."""
        size, count = self.sizes[source], self.draws[source]
        first, end = epoch * count, (epoch + 1) * count
        pieces = []
        for number in range(first // size, -(-end // size)):
            order = epoch_order(self.sources[source], self.seed, number, self.window, source)
            pieces.append(order[max(first - number * size, 0) : end - number * size])
        return np.concatenate(pieces)


def apportion(total: int, weights: Sequence[float]) -> list[int]:
    """Splits ``total`` into whole numbers in proportion to the weights (largest remainder; the first of equals wins)."""
    exact = [total * weight / sum(weights) for weight in weights]
    counts = [int(value) for value in exact]
    by_remainder = sorted(range(len(weights)), key=lambda i: counts[i] - exact[i])
    for position in by_remainder[: total - sum(counts)]:
        counts[position] += 1
    return counts


def check_world(batch_size: int, world_size: int) -> None:
    """Checks that every rank gets an equal part of a batch.

    Raises:
        DataError: If world size does not divide the (global) batch size.
    """
    if world_size < 1 or batch_size % world_size:
        near = [size for size in range(1, batch_size + 1) if batch_size % size == 0 and size <= max(world_size, 1)]
        raise DataError(
            f"batch_size {batch_size} is global and must be divisible by the world size, which is {world_size}; "
            f"use a multiple of {world_size}, or {near[-1]} ranks"
        )


def rank_slice(items: Sequence[T], rank: int, world_size: int) -> Sequence[T]:
    """Returns a rank's part of a global batch: equal consecutive parts, so that gathering by rank restores the batch.

    A last, incomplete batch (``drop_last=False``) is split as evenly as it goes.
    """
    if not 0 <= rank < world_size:
        raise DataError(f"rank {rank} does not exist in a world of {world_size}")
    return items[rank * len(items) // world_size : (rank + 1) * len(items) // world_size]
