"""What a loader's worker does with a list of draws: read, decode, make examples, collate. Runs in any process alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from modalign.zoo.errors import DataError

from ..decoding.sample import decode_sample
from ..decoding.table import DEFAULT_LIMITS, Limits
from ..sample_error import SampleError
from ..shards.shard_set import ShardSet
from .plan import BatchPlan, Draw
from .quarantine import Skipped, skipped_of

Example = Callable[[Any, np.random.Generator], dict[str, Any]]
Collate = Callable[[list[dict[str, Any]]], dict[str, Any]]
_MAX_REPLACEMENTS = 100


@dataclass(frozen=True)
class Task:
    """A rank's part of one batch."""

    epoch: int
    draws: Sequence[Draw]


@dataclass
class Done:
    """What comes back for a task: the batch or the error, and what was skipped on the way."""

    batch: dict[str, Any] = field(default_factory=dict)
    skipped: list[Skipped] = field(default_factory=list)
    error: str = ""

    def pin_memory(self) -> Done:
        """Pins the batch's tensors (torch calls this where the loader was asked to)."""
        from torch.utils.data._utils.pin_memory import pin_memory

        return Done(pin_memory(self.batch), self.skipped, self.error)


@dataclass
class BatchReader:
    """A map-style data set whose items are whole batches; see `Loader` for the settings.

    An ``example`` with a true attribute ``takes_encoded`` is given photographs as `EncodedImage`, to decode what it needs of them.
    """

    sources: list[ShardSet]
    example: Example
    collate: Collate
    fields: Sequence[str] | None
    seed: int
    raw: bool = False
    plan: BatchPlan | None = None  # given if bad samples are to be replaced
    limits: Limits = DEFAULT_LIMITS

    def __getitem__(self, task: Task) -> Done:
        """Makes the batch of a task; a user error travels back as text, so that it stays one sentence."""
        done = Done()
        try:
            examples, used = [], []
            for draw in task.draws:
                example, key, actual = self._one(task.epoch, draw, done)
                examples.append(example)
                used.append((key, actual))
            done.batch = self.collate(examples)
            if not isinstance(done.batch, dict):
                raise TypeError(f"collate must return a dict of named values, it returned {type(done.batch).__name__}")
            done.batch["keys"] = [key for key, _ in used]
            done.batch["sample_numbers"] = [draw.sample for _, draw in used]
            done.batch["sources"] = [draw.source for _, draw in used]
        except DataError as error:
            return Done(skipped=done.skipped, error=str(error))
        return done

    def make(self, epoch: int, draw: Draw, slot: int) -> tuple[dict[str, Any], str]:
        """Returns (example, key) of one draw; randomness comes from (seed, epoch, slot) and nothing else."""
        raw = self.sources[draw.source].read(draw.sample, self.fields)
        encoded = bool(getattr(self.example, "takes_encoded", False))
        sample = raw if self.raw else decode_sample(raw, None, self.limits, encoded=encoded)
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([self.seed % 2**64, epoch, slot])))
        try:
            return self.example(sample, rng), raw.key
        except SampleError:
            raise
        except DataError as error:
            raise SampleError(raw.shard, raw.key, "", str(error)) from error

    def _one(self, epoch: int, draw: Draw, done: Done) -> tuple[dict[str, Any], str, Draw]:
        """Makes an example; a bad sample is replaced by the one at the same place of the next batch of the plan, and so on."""
        slot, wanted = draw.draw, draw
        for _ in range(_MAX_REPLACEMENTS):
            try:
                example, key = self.make(epoch, draw, slot)
                return example, key, draw
            except DataError as error:
                if self.plan is None:
                    raise
                done.skipped.append(self._skipped(draw, error))
                step = (draw.draw + self.plan.batch_size) % self.plan.samples_per_epoch
                draw = self.plan.draw_range(epoch, step, step + 1)[0]
        raise DataError(f"{_MAX_REPLACEMENTS} bad samples in a row from draw {wanted.draw}; last: {done.skipped[-1].reason}")

    def _skipped(self, draw: Draw, error: DataError) -> Skipped:
        source = self.sources[draw.source]
        shard = source.shard_label(source.locate(draw.sample)[0])
        return skipped_of(draw.source, draw.sample, error, shard, source.key(draw.sample))
