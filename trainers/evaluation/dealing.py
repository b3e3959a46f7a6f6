"""Dealing batches out to ranks, so that several processes embed a set and get bit for bit what one would.

The batches are those of one process; rank r takes batch r, r + W, r + 2W, … A rank without a batch in the last round takes the first one
again and drops the result: parts of a sharded model gather themselves at every call, so all ranks must make the same number of calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from modalign.datasets.loading.loader import EvalLoader
from modalign.zoo.errors import DataError, ModalignError
from modalign.zoo.losses.parts.distributed import rank, world_size
from modalign.zoo.metrics.over_ranks import gathered, gathered_rows

T = TypeVar("T")
TEXTS_AT_ONCE = 128


def dealt(items: Sequence[T], number: int, ranks: int) -> Iterator[T]:
    """This rank's items, and the first of all where the last round has none left for it.

    Args:
        items: What one process would work through.
        number: This rank.
        ranks: How many there are.
    """
    for start in range(0, len(items), ranks):
        yield items[start + number] if start + number < len(items) else items[0]


def own_count(items: int, number: int, ranks: int) -> int:
    """How many of the dealt items are really this rank's."""
    return len(range(number, items, ranks))


class DealtLoader(EvalLoader):
    """An `EvalLoader` whose batches are dealt out to the ranks of the process group; with one process the same as it."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        """As `EvalLoader`, without rank and world_size.

        Attributes:
            own: How many of the batches are really this rank's; what comes after is to be dropped.
        """
        super().__init__(*args, **settings)
        batches = super().__len__()
        self.rounds, self.own = -(-batches // world_size()), own_count(batches, rank(), world_size())
        self.rank = rank()
        self._tasks = _DealtTasks(list(self._tasks))  # type: ignore[assignment]

    def __len__(self) -> int:
        return self.rounds


class _DealtTasks:
    def __init__(self, tasks: Sequence[Any]) -> None:
        self.tasks = tasks

    def __iter__(self) -> Iterator[Any]:
        return dealt(self.tasks, rank(), world_size())


def interleaved(parts: Sequence[Sequence[T]]) -> list[T]:
    """What the ranks made of their items, in the order of the items."""
    return [parts[i % len(parts)][i // len(parts)] for i in range(sum(len(part) for part in parts))]


def in_batch_order(own: Sequence[Tensor], like: Tensor) -> Tensor:
    """Rows of all ranks' batches, in the order of the batches; a collective.

    Args:
        own: Rows of this rank's batches.
        like: A tensor (0, ...) with the rows' shape and type, for a rank without any.
    """
    sizes = gathered([len(batch) for batch in own])
    rows = gathered_rows(torch.cat([*own, like]))
    return torch.cat(interleaved([part.split(counts) for part, counts in zip(rows, sizes, strict=True)]))


def embed_over_ranks(text: Any, texts: Sequence[str]) -> Tensor:
    """(N, D) what `text.embed(texts)` gives, every rank having embedded its share; a collective.

    Args:
        text: A text encoder.
        texts: The same on all ranks.
    """
    if world_size() == 1 or not texts:
        return text.embed(texts, TEXTS_AT_ONCE)
    order = list(range(len(texts)))
    if not text.fixed_length:
        order.sort(key=lambda i: -len(texts[i]))  # as `embed` does it, so that batches are the same
    blocks = [order[start : start + TEXTS_AT_ONCE] for start in range(0, len(order), TEXTS_AT_ONCE)]
    made = [text.embed([texts[i] for i in block], TEXTS_AT_ONCE) for block in dealt(blocks, rank(), world_size())]
    rows = in_batch_order(made[: own_count(len(blocks), rank(), world_size())], torch.empty(0, text.width))
    out = torch.empty_like(rows)
    out[order] = rows
    return out


def together(work: Callable[[], T]) -> T:
    """Does a rank's share of some work; an error of the input on one rank becomes an error on all, so that none waits for it.

    Args:
        work: Must not hold collectives.

    Raises:
        ModalignError: The rank's own error, or what another one met.
    """
    result: Any = None
    failure: ModalignError | None = None
    try:
        result = work()
    except ModalignError as error:
        failure = error
    met = [text for text in gathered(None if failure is None else str(failure)) if text is not None]
    if failure is not None:
        raise failure
    if met:
        raise DataError(met[0])
    return result
