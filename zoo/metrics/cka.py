"""Centred kernel alignment (Kornblith et al. 2019): are two representations of the same samples alike, up to rotation and scale?

`CKA = HSIC(K, L) / (sqrt(HSIC(K, K) HSIC(L, L)) + 1e-6)` with the kernels K of one representation and L of the other. Because of the
1e-6 (of the reference code) a representation's CKA with itself is 0.999999… and not 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .alignment_uniformity import squared_distances
from .rows import check_choice, check_paired, real

Kernel = Literal["linear", "rbf"]
EPSILON = 1e-6


@dataclass
class KernelSums:
    """What HSIC needs of two kernel matrices, summed over their rows.

    Attributes:
        samples: N.
        product: `sum_ij K_ij L_ij`.
        rows: `sum_i (sum_j K_ij) (sum_j L_ij)`.
        first: `sum_ij K_ij`.
        second: `sum_ij L_ij`.
    """

    samples: int
    product: float
    rows: float
    first: float
    second: float

    def biased(self) -> float:
        """`tr(K H L H)`, H the centring matrix; without 1/(N-1)^2, which cancels in CKA."""
        n = self.samples
        return self.product - 2 * self.rows / n + self.first * self.second / n**2

    def unbiased(self) -> float:
        """Song et al. 2012, equation 5, of kernels whose diagonal is zero; N must be at least 4."""
        n = self.samples
        mixed = self.first * self.second / ((n - 1) * (n - 2)) - 2 * self.rows / (n - 2)
        return (self.product + mixed) / (n * (n - 3))


def hsic(
    x: Tensor, y: Tensor, *, kernel: Kernel = "linear", sigma: float = 1.0, unbiased: bool = False, chunk: int = 1024
) -> float:
    """Hilbert-Schmidt independence criterion of two representations; holds `chunk` rows of each kernel at a time.

    Args:
        x: (N, D) one representation.
        y: (N, E) the other, of the same samples.
        kernel: `linear`, inner products, or `rbf`, `exp(-||a - b||^2 / 2 sigma^2)`.
        sigma: Width of the RBF kernel.
        unbiased: Song et al.'s estimator instead of `tr(K H L H)`; may be negative.
        chunk: Rows at a time.

    Raises:
        DataError: If rows are not paired or too few: 2, unbiased 4.
    """
    check_choice("kernel", kernel, ("linear", "rbf"))
    check_paired("HSIC", x, y, 4 if unbiased else 2)
    # the linear criterion does not see a shift, but sums of large numbers would cancel
    x, y = (_centred(v) if kernel == "linear" else real(v) for v in (x, y))
    sums = _sums(_blocks(x, kernel, sigma, chunk, unbiased), _blocks(y, kernel, sigma, chunk, unbiased), len(x))
    return sums.unbiased() if unbiased else sums.biased()


def cka(
    x: Tensor, y: Tensor, *, kernel: Kernel = "linear", sigma: float = 1.0, unbiased: bool = False, chunk: int = 1024
) -> float:
    """Centred kernel alignment: 1 for representations equal up to rotation and scale, near 0 for unrelated ones.

    The biased estimator grows with D/N even for unrelated ones; the unbiased one is near 0 then, and may be negative.

    Args:
        x: (N, D) one representation.
        y: (N, E) the other, of the same samples.
        kernel: `linear` or `rbf`.
        sigma: Width of the RBF kernel.
        unbiased: Use the unbiased HSIC.
        chunk: Rows at a time.

    Raises:
        DataError: If rows are not paired or too few: 2, unbiased 4.
    """
    both, first, second = (
        hsic(a, b, kernel=kernel, sigma=sigma, unbiased=unbiased, chunk=chunk) for a, b in ((x, y), (x, x), (y, y))
    )
    return both / (math.sqrt(max(0.0, first * second)) + EPSILON)


def _centred(x: Tensor) -> Tensor:
    x = real(x)
    return x - x.mean(0)


def _blocks(x: Tensor, kernel: Kernel, sigma: float, chunk: int, hollow: bool) -> Callable[[], Iterator[Tensor]]:
    """Row blocks (chunk, N) of a kernel matrix in float64; `hollow` ones have a zero diagonal."""

    def make() -> Iterator[Tensor]:
        for start in range(0, len(x), chunk):
            rows = x[start : start + chunk]
            block = rows @ x.T if kernel == "linear" else torch.exp(-squared_distances(rows, x) / (2 * sigma**2))
            if hollow:
                block[torch.arange(len(rows)), torch.arange(start, start + len(rows))] = 0
            yield block.double()

    return make


def _sums(first: Callable[[], Iterator[Tensor]], second: Callable[[], Iterator[Tensor]], samples: int) -> KernelSums:
    sums = KernelSums(samples, 0.0, 0.0, 0.0, 0.0)
    for one, other in zip(first(), second(), strict=True):
        one_rows, other_rows = one.sum(1), other.sum(1)
        sums.product += (one * other).sum().item()
        sums.rows += (one_rows * other_rows).sum().item()
        sums.first += one_rows.sum().item()
        sums.second += other_rows.sum().item()
    return sums
