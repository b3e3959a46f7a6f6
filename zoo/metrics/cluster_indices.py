"""How well labelled groups of vectors separate: Calinski-Harabasz (higher is better) and Xie-Beni (lower is better)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import DataError
from .rows import check_finite, real


def calinski_harabasz(x: Tensor, labels: Tensor) -> float:
    """Variance between groups over variance within, each over its degrees of freedom; inf if all lie on their centres.

    `CH = (sum_k n_k ||c_k - mu||^2 / (K - 1)) / (sum_k sum_{i in k} ||x_i - c_k||^2 / (n - K))`.

    Args:
        x: (n, D).
        labels: (n,) group of each vector; any integers.

    Raises:
        DataError: If there are fewer than 2 groups, or not more vectors than groups.
    """
    x, group, centres = _grouped("Calinski-Harabasz", x, labels)
    sizes = torch.bincount(group).double()
    between = (sizes * (centres - x.mean(0)).square().sum(1)).sum() / (len(centres) - 1)
    within = (x - centres[group]).square().sum() / (len(x) - len(centres))
    return (between / within).item() if within > 0 else float("inf") if between > 0 else 0.0


def xie_beni(x: Tensor, labels: Tensor) -> float:
    """Spread within groups over the least distance of two centres, with hard labels; inf if two centres coincide.

    `XB = sum_i ||x_i - c_{k(i)}||^2 / (n min_{k != l} ||c_k - c_l||^2)`.

    Args:
        x: (n, D).
        labels: (n,) group of each vector; any integers.

    Raises:
        DataError: If there are fewer than 2 groups, or not more vectors than groups.
    """
    x, group, centres = _grouped("Xie-Beni", x, labels)
    return _over_separation((x - centres[group]).square().sum(), centres, len(x))


def fuzzy_xie_beni(x: Tensor, memberships: Tensor, m: float = 2.0) -> float:
    """The index with shares of membership, as it was defined.

    `XB = sum_k sum_i u_ki^m ||x_i - c_k||^2 / (n min_{k != l} ||c_k - c_l||^2)`, `c_k = sum_i u_ki^m x_i / sum_i u_ki^m`.

    Args:
        x: (n, D).
        memberships: (K, n) share of each vector in each group; columns sum to 1. Shares of 0 and 1 give `xie_beni`.
        m: Fuzziness, 2 as in the paper.

    Raises:
        DataError: If shapes do not fit, columns do not sum to 1, or a group is empty.
    """
    check_finite("Xie-Beni", x, memberships)
    x, u = real(x).double(), real(memberships).double()
    if u.ndim != 2 or u.shape[1] != len(x) or len(u) < 2 or bool((u < 0).any()) or bool(((u.sum(0) - 1).abs() > 1e-4).any()):
        raise DataError(
            f"Xie-Beni: memberships are (groups, {len(x)}) shares that sum to 1 over 2 groups or more; got {tuple(u.shape)}"
        )
    weights = u**m
    if bool((weights.sum(1) == 0).any()):
        raise DataError("Xie-Beni: a group has no member")
    centres = weights @ x / weights.sum(1, keepdim=True)
    spread = sum((w * (x - c).square().sum(1)).sum() for w, c in zip(weights, centres, strict=True))
    return _over_separation(torch.as_tensor(spread), centres, len(x))


def _over_separation(spread: Tensor, centres: Tensor, n: int) -> float:
    distances = torch.nn.functional.pdist(centres).square().min()
    return (spread / (n * distances)).item() if distances > 0 else float("inf")


def _grouped(what: str, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Vectors in float64, groups numbered from 0, and the groups' centres (K, D)."""
    check_finite(what, x)
    x = real(x).double()
    values, group = labels.unique(return_inverse=True)
    if len(labels) != len(x) or len(values) < 2 or len(x) <= len(values):
        raise DataError(
            f"{what} needs a label per vector, 2 groups or more and more vectors than groups; got {len(x)} vectors, "
            f"{len(labels)} labels, {len(values)} groups"
        )
    sums = x.new_zeros((len(values), x.shape[1])).index_add_(0, group, x)
    return x, group, sums / torch.bincount(group)[:, None]
