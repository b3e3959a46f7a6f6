"""Which samples make up which batch: a pure function of (seed, epoch), whatever the number of ranks and workers.

An epoch is `samples_per_epoch` draws. Every source gets the same number of draws in every epoch (its share by weight), and
goes on where it stopped: its p-th pass over its samples has its own order. So what an epoch holds follows from its number
alone, and there is no state but (epoch, batch).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from modalign.zoo.errors import DataError

from .order import EpochOrder, permutation

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
                f"batch_size {batch_size} is more than the {self.samples_per_epoch} samples of an epoch, so there is no full batch; "
                f"set data.batch_size to {self.samples_per_epoch} or less"
            )
        self._orders: OrderedDict[tuple[int, int], EpochOrder] = OrderedDict()
        self._mixed: tuple[int, np.ndarray, np.ndarray] | None = None

    def __len__(self) -> int:
        full, rest = divmod(self.samples_per_epoch, self.batch_size)
        return full + (1 if rest and not self.drop_last else 0)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_orders": OrderedDict(), "_mixed": None}

    def epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns (source of every draw, sample number of every draw) of an epoch, int64 (samples_per_epoch,) each."""
        return self.columns(epoch, 0, self.samples_per_epoch)

    def batch(self, epoch: int, batch: int, rank: int = 0, world_size: int = 1) -> list[Draw]:
        """Returns the draws of a global batch, or a rank's part of them (`rank_slice`).

        Raises:
            DataError: If the epoch has no such batch.
        """
        if not 0 <= batch < len(self):
            raise DataError(f"there is no batch {batch}; an epoch has {len(self)}")
        first = batch * self.batch_size
        places = range(first, min(first + self.batch_size, self.samples_per_epoch))
        mine = rank_slice(places, rank, world_size)
        return self.draw_range(epoch, mine[0], mine[-1] + 1) if mine else []

    def draw_range(self, epoch: int, first: int, end: int) -> list[Draw]:
        """Returns the draws ``first`` to ``end - 1`` of an epoch, across batches."""
        of_source, samples = (column.tolist() for column in self.columns(epoch, first, end))
        return [
            Draw(source, sample, first + place) for place, (source, sample) in enumerate(zip(of_source, samples, strict=True))
        ]

    def columns(self, epoch: int, first: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        """What `draw_range` returns in two arrays, sources and sample numbers; with one source, only their part of the order is made."""
        if len(self.sizes) == 1:
            return np.zeros(end - first, dtype=np.int64), self._source_draws(0, epoch, first, end)
        of_source, places = self._mixture(epoch)
        of_source, places = of_source[first:end].astype(np.int64), places[first:end]
        samples = np.empty(len(places), dtype=np.int64)
        for source in range(len(self.draws)):
            mine = of_source == source
            if mine.any():
                stretch = self._source_draws(source, epoch, int(places[mine].min()), int(places[mine].max()) + 1)
                samples[mine] = stretch  # within a source, draws follow its order without a gap
        return of_source, samples

    def _mixture(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """(source of every draw of an epoch, how many draws of that source came before it)."""
        if self._mixed is None or self._mixed[0] != epoch:
            of_source = np.repeat(np.arange(len(self.draws), dtype=np.uint16), self.draws)
            of_source = of_source[permutation(self.samples_per_epoch, "mixture", self.seed, epoch)]
            places = np.empty(self.samples_per_epoch, dtype=np.int64)
            for source, count in enumerate(self.draws):
                places[of_source == source] = np.arange(count)
            self._mixed = epoch, of_source, places
        return self._mixed[1], self._mixed[2]

    def _source_draws(self, source: int, epoch: int, first: int, end: int) -> np.ndarray:
        """Returns draws ``first`` to ``end - 1`` of a source in an epoch: a stretch of its endless row of passes."""
        size, count = self.sizes[source], self.draws[source]
        first, end = epoch * count + first, epoch * count + end
        passes = range(first // size, -(-end // size))
        pieces = [self._order(source, number).take(max(first - number * size, 0), end - number * size) for number in passes]
        return np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.int64)

    def _order(self, source: int, number: int) -> EpochOrder:
        key = (source, number)
        if key not in self._orders:
            while len(self._orders) >= 2 * len(self.sources):
                self._orders.popitem(last=False)
            self._orders[key] = EpochOrder(self.sources[source], self.seed, number, self.window, source)
        self._orders.move_to_end(key)
        return self._orders[key]


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
