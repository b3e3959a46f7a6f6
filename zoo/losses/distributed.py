"""Gathering across ranks with gradients, so that a loss over W ranks equals the loss of one process."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """Number of ranks; 1 outside a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process's rank; 0 outside a process group."""
    return dist.get_rank() if world_size() > 1 else 0


class _Gather(torch.autograd.Function):
    """all_gather forward; backward sums every rank's gradient of this rank's rows (reduce-scatter sum)."""

    @staticmethod
    def forward(ctx, local: Tensor) -> Tensor:  # type: ignore[no-untyped-def, override]  # noqa: ANN001
        parts = [torch.empty_like(local) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, local.contiguous())
        ctx.rows = local.shape[0]
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:  # type: ignore[no-untyped-def, override]  # noqa: ANN001
        total = grad.contiguous().clone()
        dist.all_reduce(total)  # gloo has no reduce_scatter for CPU tensors in every version
        start = dist.get_rank() * ctx.rows
        return total[start : start + ctx.rows]


def gather(local: Tensor) -> Tensor:
    """(B, ...) of every rank -> (W·B, ...), in rank order, with exact gradients. B must be equal on all ranks."""
    return local if world_size() == 1 else _Gather.apply(local)
