"""MUSE's refinement: translate with the present map, take the answers for a dictionary, solve Procrustes on it, and again."""

from __future__ import annotations

import torch
from torch import Tensor

from ...errors import DataError
from ..rows import real, unit
from .csls import Method, translate
from .procrustes import procrustes


def induced_pairs(
    source: Tensor,
    target: Tensor,
    *,
    vocabulary: int | None = None,
    mutual: bool = False,
    method: Method = "csls",
    k: int = 10,
) -> Tensor:
    """(P, 2) rows of sources and of the targets they translate to.

    Args:
        source: (S, D) mapped source vectors, by frequency.
        target: (T, D) target vectors, by frequency.
        vocabulary: Most frequent vectors of each side that may make pairs; the others still count as neighbours.
        mutual: Keep only pairs that translate to each other both ways.
        method: How to translate.
        k: CSLS's neighbourhood.

    Raises:
        DataError: If no pair is left.
    """
    most = max(len(source), len(target)) if vocabulary is None else vocabulary
    rows = torch.arange(min(len(source), most), device=source.device)
    found = translate(source, target, rows, method=method, count=1, k=k)[:, 0]
    keep = found < most
    if mutual:
        keep &= translate(target, source, found, method=method, count=1, k=k)[:, 0] == rows
    if not bool(keep.any()):
        raise DataError("no source and target are each other's best translation; the map is no better than chance")
    return torch.stack((rows[keep], found[keep]), 1)


def refine(
    source: Tensor,
    target: Tensor,
    matrix: Tensor,
    rounds: int = 5,
    *,
    vocabulary: int = 15_000,
    mutual: bool = False,
    method: Method = "csls",
    k: int = 10,
) -> Tensor:
    """Improves a map without a dictionary; the result is orthogonal.

    Args:
        source: (S, D) unit source vectors, by frequency.
        target: (T, D) unit target vectors, by frequency.
        matrix: (D, D) the map to start from.
        rounds: MUSE's 5.
        vocabulary: See `induced_pairs`; MUSE's 15,000.
        mutual: Take only pairs that translate to each other.
        method: How to translate; MUSE's CSLS.
        k: CSLS's neighbourhood; MUSE's 10.

    Returns:
        (D, D).
    """
    source, target = unit(real(source)), unit(real(target))
    for _ in range(rounds):
        pairs = induced_pairs(source @ matrix.T, target, vocabulary=vocabulary, mutual=mutual, method=method, k=k)
        matrix = procrustes(source[pairs[:, 0]], target[pairs[:, 1]])
    return matrix
