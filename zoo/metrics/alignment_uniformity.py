"""How close pairs are and how evenly vectors spread on the sphere (Wang & Isola 2020), within and across two modalities.

For unit vectors `alignment = 2 - 2 mean cos`. Uniformity lies in [-4t, 0]: 0 only if all vectors coincide, -2t in the limit of random
directions in high dimension, -4t for two antipodal points. Lower is more even.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..errors import DataError
from .rows import check_finite, check_paired, real


def alignment(x: Tensor, y: Tensor, alpha: float = 2.0) -> float:
    """How far partners lie apart: `mean_i ||x_i - y_i||^alpha`.

    Args:
        x: (N, D) unit vectors.
        y: (N, D) unit vectors, row by row their partners.
        alpha: Exponent.
    """
    check_paired("alignment", x, y)
    return (real(x) - real(y)).norm(dim=1).double().pow(alpha).mean().item()


def uniformity(x: Tensor, t: float = 2.0, chunk: int = 1024) -> float:
    """How evenly vectors of one modality spread: `log mean_{i<j} exp(-t ||x_i - x_j||^2)`.

    Args:
        x: (N, D) unit vectors, N at least 2.
        t: Sharpness.
        chunk: Rows compared with all others at a time.

    Raises:
        DataError: If there are fewer than 2 vectors.
    """
    return _log_mean_kernel("uniformity", x, x, t, chunk)


def cross_uniformity(x: Tensor, y: Tensor, t: float = 2.0, chunk: int = 1024) -> float:
    """Uniformity across modalities, partners left out: `log mean_{i != j} exp(-t ||x_i - y_j||^2)`.

    Args:
        x: (N, D) unit vectors, N at least 2.
        y: (N, D) unit vectors, row by row their partners.
        t: Sharpness.
        chunk: Rows compared with all others at a time.

    Raises:
        DataError: If there are fewer than 2 pairs.
    """
    check_paired("cross-modal uniformity", x, y)
    return _log_mean_kernel("cross-modal uniformity", x, y, t, chunk)


def _log_mean_kernel(what: str, x: Tensor, y: Tensor, t: float, chunk: int) -> float:
    """Mean over all ordered pairs i != j, which for one set is the mean over i < j."""
    check_finite(what, x, y)
    if len(x) < 2:
        raise DataError(f"{what} needs at least 2 vectors, there are {len(x)}")
    x, y, parts = real(x), real(y), []
    for start in range(0, len(x), chunk):
        rows = x[start : start + chunk]
        exponents = -t * squared_distances(rows, y)
        exponents[torch.arange(len(rows)), torch.arange(start, start + len(rows))] = float("-inf")
        parts.append(exponents.double().logsumexp((0, 1)))
    return torch.stack(parts).logsumexp(0).item() - math.log(len(x) * (len(x) - 1))


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """(N, M) `||x_i - y_j||^2`, never below 0."""
    squares = (x * x).sum(1)[:, None] + (y * y).sum(1)[None]
    return (squares - 2 * x @ y.T).clamp(min=0)
