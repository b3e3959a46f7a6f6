"""CKNNA: centred kernel alignment over mutual nearest neighbours only (Huh et al. 2024)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .cka import EPSILON, KernelSums
from .neighbours import neighbours_of_both
from .rows import check_paired, real


def cknna(x: Tensor, y: Tensor, k: int = 10, chunk: int = 1024) -> float:
    """Centred kernel alignment over mutual nearest neighbours.

    `S(K, L) / (sqrt(S(K, K) S(L, L)) + 1e-6)`, S the unbiased HSIC of the linear kernels, zero except at mutual neighbours.

    Entry (i, j) is kept where j is among i's k nearest in both representations; in S(K, K) in the one alone. With k = N - 1 it is the
    unbiased CKA. Kept entries are N k, never N x N.

    Args:
        x: (N, D) unit vectors, N at least 4.
        y: (N, E) unit vectors of the same samples.
        k: Number of neighbours, at least 2.
        chunk: Samples at a time.
    """
    check_paired("cknna", x, y, 4)
    in_x, in_y = neighbours_of_both("cknna", x, y, k, chunk)
    x, y = real(x), real(y)
    both, first, second = (
        _hsic_of_kept(a, b, *_kept(m, n)) for a, b, m, n in ((x, y, in_x, in_y), (x, x, in_x, in_x), (y, y, in_y, in_y))
    )
    return both / (math.sqrt(max(0.0, first * second)) + EPSILON)


def _kept(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns of the entries that both lists of neighbours have."""
    samples = len(first)
    start = torch.arange(samples, device=first.device)[:, None] * samples
    keys = (start + first).flatten()
    keys = keys[torch.isin(keys, (start + second).flatten(), assume_unique=True)]
    return keys // samples, keys % samples


def _hsic_of_kept(x: Tensor, y: Tensor, row: Tensor, column: Tensor) -> float:
    """Unbiased HSIC of two sparse kernels with the same pattern, which need not be symmetric: `sum_ij K_ij L_ji`, column sums of K."""
    samples = len(x)
    ours, theirs = ((v[row] * v[column]).sum(1).double() for v in (x, y))
    product = (ours * _mirrored(theirs, row, column, samples)).sum().item()
    columns = torch.zeros(samples, dtype=torch.float64, device=x.device).index_add_(0, column, ours)
    rows = torch.zeros(samples, dtype=torch.float64, device=x.device).index_add_(0, row, theirs)
    return KernelSums(samples, product, (columns * rows).sum().item(), ours.sum().item(), theirs.sum().item()).unbiased()


def _mirrored(values: Tensor, row: Tensor, column: Tensor, samples: int) -> Tensor:
    """For every entry (i, j) the value of entry (j, i); 0 where it is not kept."""
    if not len(values):
        return values
    keys, order = (row * samples + column).sort()
    wanted = column * samples + row
    place = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
    return torch.where(keys[place] == wanted, values[order][place], torch.zeros_like(values))
