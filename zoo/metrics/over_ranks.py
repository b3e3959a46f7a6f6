"""Metrics over several ranks: each takes its share of the rows, counts are summed, vectors are put together in order.

Every function here but `share` is a collective: all ranks call it, in the same order. With one process they change nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from ..losses.parts.distributed import rank, world_size

T = TypeVar("T")


def share(count: int, chunk: int, over_ranks: bool) -> Iterator[slice]:
    """The chunks of `count` rows that this rank works on; chunk c belongs to rank c mod W.

    Chunks are the same with any number of ranks, so that a product of matrices has the same shape, and its result the same bits.

    Args:
        count: Rows of all ranks together.
        chunk: Rows per chunk.
        over_ranks: False gives every rank all chunks.
    """
    first, step = (rank(), world_size()) if over_ranks else (0, 1)
    for start in range(first * chunk, count, step * chunk):
        yield slice(start, min(start + chunk, count))


def summed(values: Tensor, over_ranks: bool = True) -> Tensor:
    """The sum of every rank's tensor, on every rank, on the device it came from."""
    if not over_ranks or world_size() == 1:
        return values
    total = _on_wire(values).clone()
    dist.all_reduce(total)
    return total.to(values.device)


def gathered(value: T) -> list[T]:
    """Every rank's plain Python value, in the order of the ranks."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def agreed(value: T) -> T:
    """The first rank's value, on every rank: for decisions that all must take alike."""
    if world_size() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


def gathered_rows(local: Tensor) -> list[Tensor]:
    """Every rank's rows (n_r, ...), on every rank; n_r may differ, and may be zero.

    Args:
        local: This rank's rows; shape of a row and dtype must be the same on all ranks.
    """
    if world_size() == 1:
        return [local]
    counts = gathered(len(local))
    padded = local.new_zeros((max(counts), *local.shape[1:]))
    padded[: len(local)] = local
    padded = _on_wire(padded)
    everyone = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(everyone, padded)
    return [rows[:count].to(local.device) for rows, count in zip(everyone, counts, strict=True)]


def _on_wire(tensor: Tensor) -> Tensor:
    """The tensor where the process group's backend can send it from."""
    if dist.get_backend() == "nccl":
        return tensor.to(torch.device("cuda", torch.cuda.current_device())).contiguous()
    return tensor.cpu().contiguous()
