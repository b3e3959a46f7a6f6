"""Passing text vectors between ranks, block by block, with exact gradients.

The backward pass of an exchange is the exchange in the opposite direction. There are four ways to see every rank's block; all give the
same loss and gradients and differ in traffic only.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor

from .distributed import check_equal_rows, gather, rank, world_size

Exchange = Literal["bidir", "shift", "reduce", "gather"]


def blocks(local: Tensor, how: Exchange) -> Iterator[tuple[Tensor, bool]]:
    """Every rank's block once, with whether it is this rank's own. No more than two blocks travel at a time, `gather` excepted.

    Args:
        local: (B, D) block of this rank; B must be equal on all ranks.
        how: `bidir`: blocks go round the ring both ways at once, (W-1)/2 exchanges and, for even W, one more in one direction;
            `shift`: one way, W-1 exchanges; `reduce`: each rank in turn sends its block to all, and their gradients are summed up for
            it; `gather`: all at once, memory of N rows.

    Raises:
        AssemblyError: If B differs between ranks.
    """
    if world_size() == 1:
        yield local, True
        return
    yield from {"bidir": _both_ways, "shift": _one_way, "reduce": _in_turn, "gather": _all_at_once}[how](local)


def _both_ways(local: Tensor) -> Iterator[tuple[Tensor, bool]]:
    check_equal_rows(local)
    yield local, True
    to_left = to_right = local
    pairs, one_more = divmod(world_size() - 1, 2)
    for _ in range(pairs):
        from_right, from_left = pass_both_ways(to_left, to_right)
        yield from_left, False
        yield from_right, False
        to_left, to_right = from_right, from_left
    if one_more:
        yield _Pass.apply(to_right, 1), False


def _one_way(local: Tensor) -> Iterator[tuple[Tensor, bool]]:
    check_equal_rows(local)
    yield local, True
    block = local
    for _ in range(world_size() - 1):
        block = _Pass.apply(block, 1)
        yield block, False


def _in_turn(local: Tensor) -> Iterator[tuple[Tensor, bool]]:
    check_equal_rows(local)
    for source in range(world_size()):
        yield _Share.apply(local, source), source == rank()


def _all_at_once(local: Tensor) -> Iterator[tuple[Tensor, bool]]:
    for number, block in enumerate(gather(local).chunk(world_size())):
        yield block, number == rank()


def pass_both_ways(to_left: Tensor, to_right: Tensor) -> tuple[Tensor, Tensor]:
    """Hands one tensor to each neighbour in the ring; returns what arrives from the right and from the left, with gradients."""
    return _PassBothWays.apply(to_left, to_right)


def swap(sends: list[tuple[Tensor, int]], receives: list[tuple[Tensor, int]]) -> None:
    """Sends and receives at the same time, without a gradient.

    Args:
        sends: Tensors with the ring step (+1 right, -1 left) to the rank that gets them.
        receives: Tensors to fill, with the ring step to the rank they come from.
    """
    here, size = rank(), world_size()
    operations = [dist.P2POp(dist.isend, tensor.contiguous(), (here + step) % size) for tensor, step in sends]
    operations += [dist.P2POp(dist.irecv, tensor, (here + step) % size) for tensor, step in receives]
    for request in dist.batch_isend_irecv(operations):
        request.wait()


class _Pass(torch.autograd.Function):
    """Hands a tensor on by one place in the ring and returns the one that arrives."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, step: int) -> Tensor:
        ctx.step = step
        arrived = torch.empty_like(tensor, memory_format=torch.contiguous_format)
        swap([(tensor, step)], [(arrived, -step)])
        return arrived

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return _Pass.apply(grad, -ctx.step), None


class _PassBothWays(torch.autograd.Function):
    """Hands one tensor to the left and one to the right; returns what arrives from the right and from the left."""

    @staticmethod
    def forward(ctx: Any, to_left: Tensor, to_right: Tensor) -> tuple[Tensor, Tensor]:
        from_left, from_right = (torch.empty_like(t, memory_format=torch.contiguous_format) for t in (to_right, to_left))
        swap([(to_left, -1), (to_right, 1)], [(from_right, 1), (from_left, -1)])
        return from_right, from_left

    @staticmethod
    def backward(ctx: Any, from_right: Tensor, from_left: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        to_right, to_left = _PassBothWays.apply(from_left, from_right)
        return to_left, to_right


class _Share(torch.autograd.Function):
    """Everybody gets the tensor of one rank, which gets the sum of everybody's gradients."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, source: int) -> Tensor:
        ctx.source = source
        shared = tensor.contiguous().clone()
        dist.broadcast(shared, source)
        return shared

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        total = grad.contiguous().clone()
        dist.reduce(total, ctx.source)
        return (total if rank() == ctx.source else torch.zeros_like(total)), None
