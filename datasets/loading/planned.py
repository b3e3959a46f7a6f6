"""What loaders of training batches share: the position in the plan, how it is saved, and how it goes on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from modalign.zoo.errors import DataError

from .base import BaseLoader, PlannedTasks
from .plan import BatchPlan, check_world, rank_slice
from .reading import Done


class Source(Protocol):
    """Numbered samples in shards, of which a plan makes batches."""

    shard_sizes: list[int]

    def __len__(self) -> int: ...

    @property
    def fingerprint(self) -> str:
        """A hash of the content."""

    def check_cache(self, window: int) -> None:
        """Refuses an order that would fetch the same shard again and again."""


class PlannedLoader(BaseLoader):
    """Batches in the order of a plan, resumable at any batch.

    Iterating goes on from the current position to the end of its epoch; the next iteration is the next epoch. The position
    counts batches handed out, so it is right at any moment, also with batches prefetched by workers.

    Args:
        sources: Where samples come from, in the order of the plan's sources.
        plan: Which samples make up which (global) batch.
        reader: A map-style data set whose items, by task, are `Done` batches.
        rank: This process' number.
        world_size: Number of processes; must divide the plan's batch size.
        num_workers: Worker processes.
        prefetch: Batches each worker prepares ahead.
        pin_memory: Let torch pin the batches' memory.
        timeout: Seconds to wait for a batch before it is an error; 0 waits for ever.

    Raises:
        DataError: If plan, sources and world size do not fit together; while iterating, for a bad sample.
    """

    #: what lists the tasks of a rank
    tasks_of: type[PlannedTasks] = PlannedTasks

    def __init__(
        self,
        sources: Sequence[Any],
        plan: BatchPlan,
        reader: Any,
        *,
        rank: int = 0,
        world_size: int = 1,
        num_workers: int = 0,
        prefetch: int = 4,
        pin_memory: bool = False,
        timeout: float = 0.0,
    ) -> None:
        if [list(source.shard_sizes) for source in sources] != plan.sources:
            raise DataError(f"the plan was made for other sources ({plan.sizes} samples, got {[len(s) for s in sources]})")
        check_world(plan.batch_size, world_size)
        rank_slice((), rank, world_size)
        rest = plan.samples_per_epoch % plan.batch_size
        if not plan.drop_last and 0 < rest < world_size:
            raise DataError(
                f"the last batch of an epoch has {rest} samples, so some of the {world_size} ranks would get none; drop it"
            )
        for source in sources:
            source.check_cache(plan.window)
        self._tasks: PlannedTasks
        super().__init__(reader, self.tasks_of(plan, rank, world_size), num_workers, prefetch, pin_memory, timeout)
        self.sources, self.plan, self.rank, self.world_size = list(sources), plan, rank, world_size
        self._epoch, self._batch = 0, 0

    def __len__(self) -> int:
        """Batches of a whole epoch, always: Lightning loses a batch at a mid-epoch resume without it."""
        return len(self.plan)

    @property
    def position(self) -> tuple[int, int]:
        """(epoch, batch) that is handed out next; after the last batch of an epoch it is the start of the next one."""
        return self._epoch, self._batch

    def seek(self, epoch: int, batch: int = 0) -> None:
        """Sets what the next iteration starts with; ``(e, len)`` is ``(e + 1, 0)``.

        Raises:
            DataError: If there is no such position.
        """
        if epoch < 0 or not 0 <= batch <= len(self):
            raise DataError(f"cannot start at epoch {epoch}, batch {batch}; an epoch has {len(self)} batches")
        self._epoch, self._batch = (epoch + 1, 0) if batch == len(self) else (epoch, batch)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        epoch, first = self._tasks.epoch, self._tasks.batch = self._epoch, self._batch
        last = len(self)
        for following, done in enumerate(self._results(), start=first + 1):
            self._note(done)
            if done.error:
                self.close()
                raise DataError(done.error)
            self._epoch, self._batch = (epoch + 1, 0) if following == last else (epoch, following)
            yield done.batch

    def _note(self, done: Done) -> None:
        """Sees every batch before it is handed out."""

    def state_dict(self) -> dict[str, Any]:
        """Returns the position as a few JSON values; it holds for any world size and number of workers."""
        seen = (self._epoch * len(self) + self._batch) * self.plan.batch_size
        if not self.plan.drop_last:
            seen = self._epoch * self.plan.samples_per_epoch + self._batch * self.plan.batch_size
        return {"epoch": self._epoch, "batch": self._batch, "samples_seen": seen, **self._identity()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from a saved position.

        Raises:
            DataError: If the state is of other data, another seed or another batch size, where it would mean other samples.
        """
        for name, ours in self._identity().items():
            if state.get(name) != ours:
                raise DataError(
                    f"the saved data position was made with {name} = {state.get(name)!r}, this run has {ours!r}; "
                    f"{self._what_differs(name)}, or start a new run"
                )
        self.seek(int(state["epoch"]), int(state["batch"]))

    def _what_differs(self, name: str) -> str:
        if name != "data":
            return "continue with the same data settings"
        names = ", ".join(str(source.folder) for source in self.sources)
        return f"the shards ({names}) or what is taken of them changed: continue with those the run began with"

    def _identity(self) -> dict[str, Any]:
        plan = self.plan
        text = repr(([source.fingerprint for source in self.sources], plan.draws, plan.drop_last, plan.window))
        data = hashlib.sha256(text.encode()).hexdigest()[:16]
        return {"seed": plan.seed, "batch_size": plan.batch_size, "samples_per_epoch": plan.samples_per_epoch, "data": data}
