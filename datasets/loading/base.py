"""What the loaders share: samplers of batches, and torch's `DataLoader` around a `BatchReader`."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from modalign.zoo.errors import DataError

from .plan import BatchPlan, Draw
from .reading import Done, Task
from .watch import watched

if TYPE_CHECKING:
    from torch.utils.data import DataLoader


class PlannedTasks:
    """The sampler of training: this rank's part of every batch from a position to the end of its epoch.

    It does not refer to its loader: a cycle would leave worker processes to the garbage collector, which may run in another
    loader's forked worker and there close what is still in use.
    """

    def __init__(self, plan: BatchPlan, rank: int, world_size: int) -> None:
        self.plan, self.rank, self.world_size = plan, rank, world_size
        self.epoch, self.batch = 0, 0

    def __iter__(self) -> Iterator[Any]:
        epoch, first = self.epoch, self.batch
        for batch in range(first, len(self.plan)):
            yield Task(epoch, self.plan.batch(epoch, batch, self.rank, self.world_size))


class OrderedTasks:
    """The sampler of evaluation: this rank's samples in stored order."""

    def __init__(self, draws: Sequence[Draw], batch_size: int) -> None:
        self.draws, self.batch_size = draws, batch_size

    def __iter__(self) -> Iterator[Task]:
        for first in range(0, len(self.draws), self.batch_size):
            yield Task(0, self.draws[first : first + self.batch_size])


class BaseLoader:
    """What both loaders share: the torch DataLoader around a `BatchReader`."""

    rank = 0

    def __init__(
        self,
        reader: Any,
        tasks: PlannedTasks | OrderedTasks,
        num_workers: int,
        prefetch: int,
        pin_memory: bool,
        timeout: float,
    ) -> None:
        if num_workers < 0 or prefetch < 1 or timeout < 0:
            raise DataError(
                f"num_workers is {num_workers} (0 or more), prefetch {prefetch} (1 or more batches per worker) "
                f"and timeout {timeout} (seconds; 0 waits for ever)"
            )
        self.reader, self._tasks = reader, tasks
        self.num_workers, self.prefetch, self.pin_memory, self.timeout = num_workers, prefetch, pin_memory, timeout
        self._engine: DataLoader | None = None

    def _where(self) -> str:
        """Names this loader for messages."""
        names = ", ".join(source.store.name for source in self.reader.sources)
        return f"rank {self.rank}: the {type(self).__name__} of {names} ({self.num_workers} workers)"

    def _results(self) -> Iterator[Done]:
        try:
            yield from watched(self._unwatched(), self.timeout, self.num_workers > 0, self._where)
        except DataError:
            self.close()
            raise

    def _unwatched(self) -> Iterator[Done]:
        import torch
        from torch.utils.data import DataLoader

        if self._engine is None:
            several = {"prefetch_factor": self.prefetch, "persistent_workers": True} if self.num_workers else {}
            self._engine = DataLoader(
                self.reader,  # type: ignore[arg-type]
                batch_size=None,
                sampler=self._tasks,  # type: ignore[arg-type]
                num_workers=self.num_workers,
                worker_init_fn=_start_worker,
                collate_fn=_as_is,  # type: ignore[arg-type]
                pin_memory=self.pin_memory,
                timeout=self.timeout if self.num_workers else 0,
                generator=torch.Generator(),  # its own: the program's random numbers do not depend on how often we iterate
                **several,  # type: ignore[arg-type]
            )
        return iter(self._engine)

    def close(self) -> None:
        """Ends the worker processes; the next iteration starts new ones."""
        self._engine = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_engine": None}


def _as_is(done: Done) -> Done:
    return done


def _start_worker(worker: int) -> None:
    """Keeps a forked worker's garbage collector off what it inherited: other loaders' queues are not its own to close."""
    gc.freeze()
