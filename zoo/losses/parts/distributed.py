"""Gathering across ranks with gradients, so that a loss over W ranks equals the loss of one process."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ...errors import AssemblyError


def world_size() -> int:
    """Number of ranks; 1 outside a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process's rank; 0 outside a process group."""
    return dist.get_rank() if world_size() > 1 else 0


def _all_gather(local: Tensor) -> Tensor:
    """(B, ...) -> (W·B, ...)."""
    everyone = local.new_empty((world_size() * len(local), *local.shape[1:]))
    dist.all_gather_into_tensor(everyone, local.contiguous())
    return everyone


class _Gather(torch.autograd.Function):
    """all_gather forward; backward sums every rank's gradient of this rank's rows (reduce-scatter sum)."""

    @staticmethod
    def forward(ctx: Any, local: Tensor) -> Tensor:
        return _all_gather(local)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        own = grad.new_empty((len(grad) // world_size(), *grad.shape[1:]))
        dist.reduce_scatter_tensor(own, grad.contiguous())
        return own


def gather(local: Tensor, with_grad: bool = True) -> Tensor:
    """(B, ...) of every rank -> (W·B, ...), in rank order.

    Args:
        local: This rank's rows; B must be equal on all ranks.
        with_grad: Gradients flow back to the rank that a row came from, so that the rank-averaged gradient is that of one process.
            Otherwise only this rank's own rows carry a gradient, and the others' are constants.

    Raises:
        AssemblyError: If B differs between ranks; see `check_equal_rows` for when that is looked at.
    """
    if world_size() == 1:
        return local
    check_equal_rows(local)
    if with_grad:
        return _Gather.apply(local)
    everyone = _all_gather(local.detach())
    start = rank() * len(local)
    return torch.cat((everyone[:start], local, everyone[start + len(local) :]))


_checked_devices: set[torch.device] = set()


def check_equal_rows(local: Tensor) -> None:
    """Refuses ranks with different numbers of rows: labels would point at wrong rows, or the exchange would never end.

    Costs one exchange of W numbers. On a CPU it is done every time; on an accelerator, where reading the numbers would stall the
    device, only for the first batch and wherever `TORCH_DISTRIBUTED_DEBUG` asks for checks.

    Raises:
        AssemblyError: On every rank, with every rank's number.
    """
    if world_size() == 1 or torch.compiler.is_compiling():
        return
    known = local.device.type != "cpu" and local.device in _checked_devices
    if known and dist.get_debug_level() == dist.DebugLevel.OFF:
        return
    _checked_devices.add(local.device)
    counts = _all_gather(torch.tensor([len(local)], device=local.device)).tolist()
    if len(set(counts)) > 1:
        listed = ", ".join(f"rank {number}: {count}" for number, count in enumerate(counts))
        raise AssemblyError(
            f"ranks hold different numbers of rows ({listed}), and a loss over all ranks needs equal batches; "
            "drop the last incomplete batch, or choose a batch size that the number of ranks divides"
        )
