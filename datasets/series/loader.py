"""Loaders of windows: whole batches gathered at once, in the planned order, resumable like those of shards."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple, overload

import numpy as np
import torch
from torch import Tensor

from modalign.zoo.errors import DataError

from ..loading.base import PlannedTasks
from ..loading.plan import BatchPlan, rank_slice
from ..loading.planned import PlannedLoader
from ..loading.reading import Done

#: what a task makes of a batch: (batch, for each row the numbers its random draws depend on) -> batch
Prepare = Callable[[dict[str, Any], Sequence[tuple[int, ...]]], dict[str, Any]]
_AHEAD = 2**14  # samples whose order is looked up at once
_TOGETHER = 2**21  # bytes of small batches that are gathered at once


class Keys(Sequence[str]):
    """The keys of a batch's windows, written when somebody reads them."""

    def __init__(self, sources: Sequence[Any], places: np.ndarray, numbers: np.ndarray) -> None:
        self._sources, self._places, self._numbers = sources, places, numbers

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> list[str]: ...
    def __getitem__(self, row: int | slice) -> str | list[str]:
        if isinstance(row, slice):
            return [self[i] for i in range(*row.indices(len(self)))]
        key: str = self._sources[int(self._places[row])].key(int(self._numbers[row]))
        return key

    def __reduce__(self) -> Any:  # as plain text where a batch leaves its process: the rows of the sets stay behind
        return list, (list(self),)


class WindowTask(NamedTuple):
    """A rank's part of one batch of windows, in arrays: a list of draws would take longer than the windows themselves.

    Attributes:
        epoch: The epoch.
        places: (n,) the source of each window.
        numbers: (n,) its number in that source.
        first: The number in the epoch of the first one's place.
    """

    epoch: int
    places: np.ndarray
    numbers: np.ndarray
    first: int


class WindowTasks(PlannedTasks):
    """The sampler of training, which looks up the order of many batches at once."""

    def __iter__(self) -> Iterator[WindowTask]:
        epoch, ahead = self.epoch, max(1, _AHEAD // self.plan.batch_size)
        for first in range(self.batch, len(self.plan), ahead):
            yield from self._stretch(epoch, first, min(first + ahead, len(self.plan)))

    def _stretch(self, epoch: int, first: int, end: int) -> Iterator[WindowTask]:
        """The batches `first` to `end - 1` of an epoch."""
        size, begin, own = self.plan.batch_size, first * self.plan.batch_size, self.plan.batch_size // self.world_size
        columns = self.plan.columns(epoch, begin, min(end * size, self.plan.samples_per_epoch))
        rest = len(columns[0]) % size
        whole = [column[: len(column) - rest].reshape(-1, self.world_size, own)[:, self.rank] for column in columns]
        for batch, (places, numbers) in enumerate(zip(*whole, strict=True)):
            yield WindowTask(epoch, places, numbers, begin + batch * size + self.rank * own)
        if rest:
            mine = rank_slice(range(len(columns[0]) - rest, len(columns[0])), self.rank, self.world_size)
            places, numbers = (column[mine[0] : mine[-1] + 1] for column in columns)
            yield WindowTask(epoch, places, numbers, begin + mine[0])


@dataclass
class WindowReader:
    """A map-style data set whose items are whole batches of windows.

    Attributes:
        sources: Sets of windows, all with the same columns and lengths.
        seed: Of what is drawn at random.
        prepare: Makes of windows what a task wants; None leaves them as they are.
    """

    sources: list[Any]
    seed: int = 0
    prepare: Prepare | None = None

    def __post_init__(self) -> None:
        """Notes whether anything is drawn at random."""
        self.random = self.prepare is not None or any(getattr(source, "random", False) for source in self.sources)

    def __getitem__(self, task: WindowTask) -> Done:
        """Gathers the windows of a task."""
        places, numbers = task.places, task.numbers
        try:
            draws = [(self.seed, task.epoch, task.first + row) for row in range(len(numbers))] if self.random else []
            batch = self._windows(places, numbers, draws)
            if self.prepare is not None:
                batch = self.prepare(batch, draws)
        except DataError as error:
            return Done(error=str(error))
        return self._done(batch, task)

    def stream(self, tasks: Iterable[WindowTask]) -> Iterator[Done]:
        """Tasks one after the other. Small batches are parts of one gather: that of a few takes little longer than that of one."""
        pending, together = iter(tasks), 1
        alone = self.random or len(self.sources) > 1  # which of several sources a batch has decides what entries it has
        for number, task in enumerate(pending):
            first = self[task]
            yield first
            if not alone and not number:
                together = max(
                    1, _TOGETHER // max(1, sum(value.nbytes for value in first.batch.values() if isinstance(value, Tensor)))
                )
            if together > 1:
                break
        while group := list(islice(pending, together)):
            yield from self._gathered(group)

    def _gathered(self, tasks: Sequence[WindowTask]) -> Iterator[Done]:
        """Several batches from one gather."""
        whole = self._windows(tasks[0].places, np.concatenate([task.numbers for task in tasks]), [])
        parts = [value.split([len(task.numbers) for task in tasks]) for value in whole.values()]
        for task, values in zip(tasks, zip(*parts, strict=True), strict=True):
            yield self._done(dict(zip(whole, values)), task)

    def _done(self, batch: dict[str, Any], task: WindowTask) -> Done:
        batch["keys"] = Keys(self.sources, task.places, task.numbers)
        batch["sample_numbers"], batch["sources"] = task.numbers, task.places  # arrays: lists would be made for nobody
        return Done(batch)

    def _windows(self, places: np.ndarray, numbers: np.ndarray, draws: Sequence[tuple[int, ...]]) -> dict[str, Any]:
        if len(self.sources) == 1:
            return self.sources[0].batch(numbers, draws)
        rows = {int(source): np.flatnonzero(places == source) for source in np.unique(places)}
        own = {source: [draws[int(row)] for row in mine] if draws else [] for source, mine in rows.items()}
        parts = {source: self.sources[source].batch(numbers[mine], own[source]) for source, mine in rows.items()}
        batch: dict[str, Any] = {}
        for name in dict.fromkeys(name for part in parts.values() for name in part):
            batch[name] = _merged(name, parts, rows, len(numbers))
        return batch


def _merged(name: str, parts: dict[int, dict[str, Tensor]], rows: dict[int, np.ndarray], count: int) -> Tensor:
    """An entry of several sources' windows in the order of the batch; a source that says nothing of missing values has none."""
    like = next(part[name] for part in parts.values() if name in part)
    whole = torch.ones((count, *like.shape[1:]), dtype=like.dtype)
    for source, part in parts.items():
        if name in part:
            whole[torch.from_numpy(rows[source])] = part[name]
    return whole


class WindowLoader(PlannedLoader):
    """Batches of windows for training, in the plan's order; see `PlannedLoader`.

    Args:
        sources: Sets of windows (`WindowSet` and its like).
        plan: Which windows make up which batch.
        prepare: Makes of windows what a task wants.
        rank: This process' number.
        world_size: Number of processes.
        num_workers: Worker processes; a gather is so quick that 0 is nearly always right.
        timeout: Seconds to wait for a batch of a worker.
    """

    tasks_of = WindowTasks

    def __init__(
        self,
        sources: Sequence[Any],
        plan: BatchPlan,
        prepare: Prepare | None = None,
        *,
        rank: int = 0,
        world_size: int = 1,
        num_workers: int = 0,
        timeout: float = 0.0,
    ) -> None:
        reader = WindowReader(list(sources), plan.seed, prepare)
        super().__init__(sources, plan, reader, rank=rank, world_size=world_size, num_workers=num_workers, timeout=timeout)

    def _results(self) -> Iterator[Done]:
        """Without workers nothing can hang, and whatever else there is between a gather and its user takes longer than the gather."""
        return super()._results() if self.num_workers else self.reader.stream(self._tasks)


class WindowEvalLoader:
    """Every window once, in order, none dropped.

    Args:
        source: A set of windows.
        batch_size: Most windows at a time; fewer where otherwise a rank would have none.
        prepare: Makes of windows what a task wants; its random draws depend on a window's number alone.
        rank: This process' number; it takes the batches rank, rank + world_size, ...
        world_size: Number of processes.

    Raises:
        DataError: If there is no such rank, or the batch size is below 1.
    """

    def __init__(
        self, source: Any, *, batch_size: int = 256, prepare: Prepare | None = None, rank: int = 0, world_size: int = 1
    ) -> None:
        if batch_size < 1 or not 0 <= rank < world_size:
            raise DataError(f"batch_size is {batch_size} (1 or more), rank {rank} of {world_size}")
        self.source, self.rank, self.world_size = source, rank, world_size
        self.batch_size = min(batch_size, max(1, len(source) // world_size))
        self.reader = WindowReader([source], 0, prepare)

    def __len__(self) -> int:
        """Batches of this rank."""
        return len(self._firsts())

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for first in self._firsts():
            numbers = np.arange(first, min(first + self.batch_size, len(self.source)))
            done = self.reader[WindowTask(0, np.zeros_like(numbers), numbers, first)]
            if done.error:
                raise DataError(done.error)
            yield done.batch

    def _firsts(self) -> range:
        """First window of each of this rank's batches."""
        return range(self.rank * self.batch_size, len(self.source), self.world_size * self.batch_size)
