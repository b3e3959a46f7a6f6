"""Checks and small steps that metrics over vectors share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..errors import AssemblyError, DataError, nearest


def real(vectors: Tensor) -> Tensor:
    """The tensor in float32 at least; float64 stays as it is."""
    return vectors if vectors.dtype == torch.float64 else vectors.float()


def unit(vectors: Tensor) -> Tensor:
    """Rows divided by their length; a row of zeros stays one."""
    lengths = vectors.norm(dim=-1, keepdim=True)
    return vectors / torch.where(lengths > 0, lengths, torch.ones_like(lengths))


def check_finite(what: str, *tensors: Tensor) -> None:
    """Refuses vectors that are no finite numbers.

    Raises:
        DataError: Naming the metric.
    """
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors):
        raise DataError(f"{what}: some vectors are not finite numbers; the model is broken (did its training diverge?)")


def check_paired(what: str, first: Tensor, second: Tensor, least: int = 1) -> None:
    """Refuses two sets that do not belong row to row, or have too few rows.

    Raises:
        DataError: Saying both shapes.
    """
    if first.ndim != 2 or second.ndim != 2 or len(first) != len(second):
        raise DataError(f"{what} compares rows pair by pair; got {tuple(first.shape)} and {tuple(second.shape)}")
    if len(first) < least:
        raise DataError(f"{what} needs at least {least} pairs, there are {len(first)}")
    check_finite(what, first, second)


def check_choice(what: str, value: Any, known: tuple[str, ...]) -> None:
    """Refuses a setting that is none of the known values.

    Raises:
        AssemblyError: Naming the nearest.
    """
    if value not in known:
        raise AssemblyError(f"{what}: there is no {value!r}{nearest(str(value), known)}")
