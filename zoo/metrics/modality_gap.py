"""The gap between two modalities in a joint space (Liang et al. 2022)."""

from __future__ import annotations

from torch import Tensor

from .rows import check_finite, real, unit


def gap_vector(x: Tensor, y: Tensor) -> Tensor:
    """(D,) `mean(x) - mean(y)` of unit vectors.

    Args:
        x: (N, D) vectors of one modality; made unit vectors.
        y: (M, D) of the other.
    """
    check_finite("modality gap", x, y)
    return unit(real(x)).mean(0) - unit(real(y)).mean(0)


def modality_gap(x: Tensor, y: Tensor) -> float:
    """Length of the gap vector: 0 where both modalities have the same centre, 2 at most.

    Args:
        x: (N, D) vectors of one modality; made unit vectors.
        y: (M, D) of the other.
    """
    return gap_vector(x, y).norm().item()
