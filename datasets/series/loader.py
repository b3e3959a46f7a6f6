"""Loaders of windows: whole batches gathered at once, in the planned order, resumable like those of shards."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor

from modalign.zoo.errors import DataError

from ..loading.base import BaseLoader, OrderedTasks
from ..loading.plan import BatchPlan, Draw
from ..loading.planned import PlannedLoader
from ..loading.reading import Done, Task

#: what a task makes of a batch: (batch, for each row the numbers its random draws depend on) -> batch
Prepare = Callable[[dict[str, Any], Sequence[tuple[int, ...]]], dict[str, Any]]


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

    def __getitem__(self, task: Task) -> Done:
        """Gathers the windows of a task."""
        places = np.fromiter((draw.source for draw in task.draws), np.int64, len(task.draws))
        numbers = np.fromiter((draw.sample for draw in task.draws), np.int64, len(task.draws))
        try:
            random = self.prepare is not None or any(getattr(source, "random", False) for source in self.sources)
            draws = [(self.seed, task.epoch, draw.draw) for draw in task.draws] if random else []
            batch = self._windows(places, numbers, draws)
            if self.prepare is not None:
                batch = self.prepare(batch, draws)
        except DataError as error:
            return Done(error=str(error))
        batch["keys"] = Keys(self.sources, places, numbers)
        batch["sample_numbers"], batch["sources"] = numbers.tolist(), places.tolist()
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

    def _unwatched(self) -> Iterator[Done]:
        """Without workers there is nothing torch's loader would add to a gather but its own time, several gathers long."""
        if self.num_workers:
            return super()._unwatched()
        return (self.reader[task] for task in self._tasks)


class WindowEvalLoader(BaseLoader):
    """Every window once, in order, none dropped.

    Args:
        source: A set of windows.
        batch_size: Most windows at a time; fewer where otherwise a rank would have none.
        prepare: Makes of windows what a task wants; its random draws depend on a window's number alone.
        rank: This process' number; it takes the batches rank, rank + world_size, ...
        world_size: Number of processes.
    """

    def __init__(
        self, source: Any, *, batch_size: int = 256, prepare: Prepare | None = None, rank: int = 0, world_size: int = 1
    ) -> None:
        if batch_size < 1 or not 0 <= rank < world_size:
            raise DataError(f"batch_size is {batch_size} (1 or more), rank {rank} of {world_size}")
        batch_size = min(batch_size, max(1, len(source) // world_size))
        self.source, self.batch_size, self.rank, self.world_size = source, batch_size, rank, world_size
        tasks = OrderedTasks([Draw(0, number, number) for number in range(len(source))], batch_size)
        super().__init__(WindowReader([source], 0, prepare), tasks, 0, 4, False, 0.0)
        self.sources = [source]

    def __len__(self) -> int:
        """Batches of this rank."""
        return len(range(self.rank, -(-len(self.source) // self.batch_size), self.world_size))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for number, task in enumerate(self._tasks):
            if number % self.world_size != self.rank:
                continue
            done = self.reader[task]
            if done.error:
                raise DataError(done.error)
            yield done.batch
