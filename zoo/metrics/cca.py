"""Canonical correlations of two representations, and SVCCA (Raghu et al. 2017)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import DataError
from .rows import check_paired, real


def canonical_correlations(x: Tensor, y: Tensor) -> Tensor:
    """(min(D, E),) canonical correlations, falling: singular values of the cross-covariance of the whitened representations.

    Meaningful only for many more samples than dimensions: with N <= D all are 1; reduce the dimensions first, as `svcca` does.

    Args:
        x: (N, D) one representation.
        y: (N, E) the other, of the same samples.

    Raises:
        DataError: If rows are not paired.
    """
    check_paired("CCA", x, y, 2)
    first, second = _basis(x), _basis(y)
    found = torch.linalg.svdvals(first.T @ second).clamp(max=1.0)
    missing = min(x.shape[1], y.shape[1]) - len(found)
    return torch.cat((found, found.new_zeros(max(0, missing))))


def svcca(x: Tensor, y: Tensor, k: int = 10) -> float:
    """Mean canonical correlation of the k strongest singular directions of each representation, in [0, 1].

    Args:
        x: (N, D) one representation.
        y: (N, E) the other, of the same samples.
        k: Directions kept; at most N - 1, D and E.

    Raises:
        DataError: If rows are not paired or k is too large.
    """
    check_paired("SVCCA", x, y, 2)
    most = min(len(x) - 1, x.shape[1], y.shape[1])
    if not 1 <= k <= most:
        raise DataError(f"SVCCA: k is {k}; for {tuple(x.shape)} and {tuple(y.shape)} it is between 1 and {most}")
    return canonical_correlations(*(_strongest(v, k) for v in (x, y))).mean().item()


def _basis(x: Tensor) -> Tensor:
    """(N, r) orthonormal columns that span the centred representation: the whitened one, up to rotation."""
    x = real(x).double()
    left, values, _ = torch.linalg.svd(x - x.mean(0), full_matrices=False)
    return left[:, values > values[0] * 1e-10] if values[0] > 0 else left[:, :0]


def _strongest(x: Tensor, k: int) -> Tensor:
    x = real(x).double()
    left, values, _ = torch.linalg.svd(x - x.mean(0), full_matrices=False)
    return left[:, :k] * values[:k]
