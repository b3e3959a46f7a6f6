"""The loaders: batches in the planned order for any number of workers, resumable at any batch with any world size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from modalign.zoo.errors import DataError

from ..shards.shard_set import ShardSet
from .base import BaseLoader, OrderedTasks
from .plan import BatchPlan, Draw
from .planned import PlannedLoader
from .quarantine import Quarantine
from .reading import BatchReader, Collate, Done, Example


class Loader(PlannedLoader):
    """Batches for training.

    Iterating goes on from the current position to the end of its epoch; the next iteration is the next epoch. The position
    counts batches handed out, so it is right at any moment, also with batches prefetched by workers.

    Args:
        sources: Where samples come from, in the order of the plan's sources.
        plan: Which samples make up which (global) batch.
        example: Makes an example from a sample and a random generator that depends on (seed, epoch, place in the epoch)
            alone; a `DataError` it raises means the sample is bad. With workers it must be picklable or inherited by fork.
        collate: Makes a dict of named values from a list of examples. "keys", "sample_numbers" and "sources" (lists, one
            entry per row) are added.
        fields: Members to read and decode ("image", "json", "0.jpg" ...); None = all, [] = only keys (nothing is opened).
        raw: Hand `RawSample` to `example` instead of a decoded `Sample`.
        rank: This process' number.
        world_size: Number of processes; must divide the plan's batch size.
        num_workers: Worker processes; any number gives the same batches in the same order.
        prefetch: Batches each worker prepares ahead.
        on_error: "raise", or "skip": a bad sample is listed in `quarantine` and replaced by the sample that the plan has at
            the same place of the next batch (again, if that is bad too), which is the same on any world size.
        error_budget: With "skip", the share of all samples that may be bad before it is an error after all.
        quarantine_file: With "skip", a JSON-lines file that the skipped samples are added to, and read back from (`Quarantine`);
            `quarantine.by_shard()` and `quarantine.summary()` tell how many there were.
        pin_memory: Let torch pin the batches' memory, for copies to a GPU.
        timeout: Seconds to wait for a batch before it is an error that names rank and loader; 0 waits for ever.

    Raises:
        DataError: If plan, sources and world size do not fit together; while iterating, for a bad sample.
    """

    def __init__(
        self,
        sources: Sequence[ShardSet],
        plan: BatchPlan,
        example: Example,
        collate: Collate,
        *,
        fields: Sequence[str] | None = None,
        raw: bool = False,
        rank: int = 0,
        world_size: int = 1,
        num_workers: int = 0,
        prefetch: int = 4,
        on_error: str = "raise",
        error_budget: float = 0.001,
        quarantine_file: str | Path | None = None,
        pin_memory: bool = False,
        timeout: float = 0.0,
    ) -> None:
        if on_error not in ("raise", "skip"):
            raise DataError(f"on_error is {on_error!r}; it can be 'raise' or 'skip'")
        replacements = plan if on_error == "skip" else None
        reader = BatchReader(list(sources), example, collate, fields, plan.seed, raw, replacements)
        super().__init__(
            sources,
            plan,
            reader,
            rank=rank,
            world_size=world_size,
            num_workers=num_workers,
            prefetch=prefetch,
            pin_memory=pin_memory,
            timeout=timeout,
        )
        path = Path(quarantine_file) if quarantine_file else None
        self.quarantine = Quarantine(sum(plan.sizes), error_budget, path, rank, self._identity()["data"])

    def _note(self, done: Done) -> None:
        self.quarantine.add(done.skipped)


class EvalLoader(BaseLoader):
    """Every sample once, in stored order, nothing dropped; for evaluation and embedding.

    Args:
        sources: One set or several, read one after the other.
        example: As for `Loader`; its generator depends on the sample's number alone.
        collate: As for `Loader`.
        batch_size: Samples per batch of this rank; the last batch may be smaller.
        fields: As for `Loader`.
        raw: As for `Loader`.
        rank: This process' number; it takes the samples rank, rank + world_size, ...
        world_size: Number of processes.
        num_workers: Worker processes.
        prefetch: Batches each worker prepares ahead.
        pin_memory: Let torch pin the batches' memory.
        timeout: As for `Loader`.

    Raises:
        DataError: While iterating, for a bad sample (skipping one would change the result).
    """

    def __init__(
        self,
        sources: ShardSet | Sequence[ShardSet],
        example: Example,
        collate: Collate,
        *,
        batch_size: int = 64,
        fields: Sequence[str] | None = None,
        raw: bool = False,
        rank: int = 0,
        world_size: int = 1,
        num_workers: int = 0,
        prefetch: int = 4,
        pin_memory: bool = False,
        timeout: float = 0.0,
    ) -> None:
        self.sources = [sources] if isinstance(sources, ShardSet) else list(sources)
        if batch_size < 1 or not 0 <= rank < world_size:
            raise DataError(f"batch_size is {batch_size} (1 or more), rank {rank} of {world_size}")
        pairs = [(source, number) for source, shards in enumerate(self.sources) for number in range(len(shards))]
        draws = [Draw(*pair, place) for place, pair in enumerate(pairs)][rank::world_size]
        reader = BatchReader(self.sources, example, collate, fields, 0, raw)
        super().__init__(reader, OrderedTasks(draws, batch_size), num_workers, prefetch, pin_memory, timeout)
        self.batch_size, self.rank, self.world_size = batch_size, rank, world_size

    def __len__(self) -> int:
        total = sum(len(source) for source in self.sources)
        mine = (total - self.rank + self.world_size - 1) // self.world_size
        return -(-mine // self.batch_size)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for done in self._results():
            if done.error:
                self.close()
                raise DataError(done.error)
            yield done.batch
