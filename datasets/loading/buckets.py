"""Batches of samples of like length: the same plan, its draws sorted by length inside windows of batches.

Source: grouping by length as LLaVA's sampler does it, here as a pure function of (seed, epoch, lengths), so that it resumes like any plan.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from modalign.zoo.errors import DataError

from .order import permutation
from .plan import BatchPlan


class BucketedPlan(BatchPlan):
    """A plan whose batches hold samples of like length, in random order of batches.

    Args:
        plan: The plan it changes: an epoch draws the same samples, and the incomplete last batch stays what it was.
        lengths: For each source the length of every sample.
        batches: Batches that are sorted together; more make lengths more alike and neighbours less random.

    Raises:
        DataError: If lengths and sources differ in number.
    """

    def __init__(self, plan: BatchPlan, lengths: Sequence[np.ndarray], batches: int = 50) -> None:
        if [len(one) for one in lengths] != plan.sizes or batches < 1:
            raise DataError(f"lengths of {[len(one) for one in lengths]} samples do not go with sources of {plan.sizes}")
        self.__dict__.update(plan.__getstate__())
        self.lengths, self.batches = [np.asarray(one, dtype=np.int64) for one in lengths], batches
        self._window: tuple[tuple[int, int], tuple[np.ndarray, np.ndarray]] | None = None

    def __getstate__(self) -> dict[str, object]:
        return {**super().__getstate__(), "_window": None}

    def columns(self, epoch: int, first: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        """See `BatchPlan.columns`."""
        size = self.batch_size * self.batches
        pieces = []
        for window in range(first // size, -(-end // size)):
            start = window * size
            sources, samples = self._sorted(epoch, window)
            part = slice(max(first - start, 0), end - start)
            pieces.append((sources[part], samples[part]))
        if not pieces:
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        return np.concatenate([one for one, _ in pieces]), np.concatenate([one for _, one in pieces])

    def _sorted(self, epoch: int, window: int) -> tuple[np.ndarray, np.ndarray]:
        if self._window is None or self._window[0] != (epoch, window):
            start = window * self.batch_size * self.batches
            end = min(start + self.batch_size * self.batches, self.samples_per_epoch)
            sources, samples = super().columns(epoch, start, end)
            order = self._order_of(epoch, window, sources, samples)
            self._window = (epoch, window), (sources[order], samples[order])
        return self._window[1]

    def _order_of(self, epoch: int, window: int, sources: np.ndarray, samples: np.ndarray) -> np.ndarray:
        """Sorted by length in whole batches, which are then mixed; what makes no whole batch stays at the end."""
        lengths = np.empty(len(samples), dtype=np.int64)
        for source, known in enumerate(self.lengths):
            mine = sources == source
            lengths[mine] = known[samples[mine]]
        whole = len(samples) // self.batch_size * self.batch_size
        batches = np.argsort(lengths[:whole], kind="stable").reshape(-1, self.batch_size)
        mixed = batches[permutation(len(batches), "buckets", self.seed, epoch, window)].reshape(-1)
        return np.concatenate([mixed, np.arange(whole, len(samples))])
