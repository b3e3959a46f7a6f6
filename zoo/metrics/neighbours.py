"""Do two representations of the same samples have the same neighbours?

Measures of the platonic representation hypothesis (Huh et al. 2024). Neighbours are those with the largest inner product, the sample
itself left out; use unit vectors. The paper takes k = 10 on 1,024 samples. All lie in [0, 1] but the length of the common subsequence,
which lies in [0, k].
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..errors import DataError
from .rows import check_paired, real
from .top_k import top_rows


def nearest_neighbours(x: Tensor, k: int, chunk: int = 1024) -> Tensor:
    """(N, k) rows of each sample's k nearest others, nearest first; ties in the order of the rows.

    Args:
        x: (N, D) unit vectors.
        k: How many; at most N - 1.
        chunk: Samples at a time.
    """
    return top_rows(real(x), real(x), k, exclude_self=True, chunk=chunk)[1]


def neighbours_of_both(what: str, x: Tensor, y: Tensor, k: int, chunk: int) -> tuple[Tensor, Tensor]:
    """Neighbours in both representations.

    Raises:
        DataError: If rows are not paired, or k is not between 1 and N - 1.
    """
    check_paired(what, x, y, 2)
    if not 1 <= k < len(x):
        raise DataError(f"{what}: k is {k}; with {len(x)} samples it is between 1 and {len(x) - 1}")
    return nearest_neighbours(x, k, chunk), nearest_neighbours(y, k, chunk)


def mutual_knn(x: Tensor, y: Tensor, k: int = 10, chunk: int = 1024) -> float:
    """The share of neighbours both have: `mean_i |N_k^x(i) and N_k^y(i)| / k`; k / (N - 1) by chance.

    Args:
        x: (N, D) unit vectors.
        y: (N, E) unit vectors of the same samples.
        k: Number of neighbours.
        chunk: Samples at a time.
    """
    return shared_neighbours(*neighbours_of_both("mutual_knn", x, y, k, chunk)).double().mean().item() / k


def shared_neighbours(first: Tensor, second: Tensor) -> Tensor:
    """(N,) how many entries two lists (N, k) of distinct rows have in common."""
    both = torch.cat((first, second), 1).sort(1).values
    return (both[:, 1:] == both[:, :-1]).sum(1)


def cycle_knn(x: Tensor, y: Tensor, k: int = 10, chunk: int = 1024) -> float:
    """Share of samples i that are a neighbour in x of one of their neighbours in y.

    Args:
        x: (N, D) unit vectors.
        y: (N, E) unit vectors of the same samples.
        k: Number of neighbours.
        chunk: Samples at a time.
    """
    in_x, in_y = neighbours_of_both("cycle_knn", x, y, k, chunk)
    back = in_x[in_y].flatten(1) == torch.arange(len(x), device=in_x.device)[:, None]
    return back.any(1).double().mean().item()


def lcs_knn(x: Tensor, y: Tensor, k: int = 10, chunk: int = 1024) -> float:
    """Mean length of the longest common subsequence of the ordered neighbours, between 0 and k (divide by k to compare k's).

    Args:
        x: (N, D) unit vectors.
        y: (N, E) unit vectors of the same samples.
        k: Number of neighbours.
        chunk: Samples at a time.
    """
    return _common_subsequence(*neighbours_of_both("lcs_knn", x, y, k, chunk)).double().mean().item()


def edit_distance_knn(x: Tensor, y: Tensor, k: int = 10, chunk: int = 1024) -> float:
    """`1 - mean_i edit distance / k` of the ordered neighbours (insertions, deletions, substitutions cost 1).

    Args:
        x: (N, D) unit vectors.
        y: (N, E) unit vectors of the same samples.
        k: Number of neighbours.
        chunk: Samples at a time.
    """
    return 1 - _edit_distance(*neighbours_of_both("edit_distance_knn", x, y, k, chunk)).double().mean().item() / k


def _common_subsequence(first: Tensor, second: Tensor) -> Tensor:
    """(N,) by dynamic programming, over all samples at once."""
    table = _table(first)
    for i in range(first.shape[1]):
        for j in range(second.shape[1]):
            same = first[:, i] == second[:, j]
            longer = torch.maximum(table[i][j + 1], table[i + 1][j])
            table[i + 1][j + 1] = torch.where(same, table[i][j] + 1, longer)
    return table[-1][-1]


def _edit_distance(first: Tensor, second: Tensor) -> Tensor:
    """(N,) by dynamic programming, over all samples at once."""
    table = _table(first)
    for i in range(first.shape[1] + 1):
        table[i][0], table[0][i] = torch.full_like(table[0][0], i), torch.full_like(table[0][0], i)
    for i in range(first.shape[1]):
        for j in range(second.shape[1]):
            other = (first[:, i] != second[:, j]).long()
            gap = torch.minimum(table[i][j + 1], table[i + 1][j]) + 1
            table[i + 1][j + 1] = torch.minimum(table[i][j] + other, gap)
    return table[-1][-1]


def _table(neighbours: Tensor) -> list[list[Any]]:
    size = neighbours.shape[1] + 1
    zero = torch.zeros(len(neighbours), dtype=torch.int64, device=neighbours.device)
    return [[zero] * size for _ in range(size)]
