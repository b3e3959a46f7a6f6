"""RCSLS: a map trained on the retrieval criterion itself (Joulin et al. 2018; fastText's `align.py`).

`f(R) = (1/n) [-2 sum_i x_i R^T . y_i + (1/k) sum_i sum_{z in N_k(x_i R^T)} x_i R^T . z + (1/k) sum_i sum_{w in N_k(y_i)} w R^T . y_i]`
over n pairs (x_i, y_i) of unit vectors, z from all targets, w from all sources: the mean of minus CSLS.
Without a constraint f falls for ever as R grows, so the number of steps is part of the method (fastText's 10).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..rows import check_paired, real, unit
from ..top_k import top_rows
from .procrustes import clip_spectrum, procrustes


@dataclass
class RcslsSettings:
    """How RCSLS trains.

    Attributes:
        k: Neighbourhood.
        rate: First step size; halved, and the step taken back, whenever f rises.
        smallest_rate: Stop below it.
        iterations: Steps at most.
        spectral: Keep the map's singular values at most 1.
        vocabulary: How many of the first (most frequent) vectors of each side are neighbours.
    """

    k: int = 10
    rate: float = 1.0
    smallest_rate: float = 1e-4
    iterations: int = 10
    spectral: bool = False
    vocabulary: int = 200_000


def rcsls_objective(
    x: Tensor, y: Tensor, sources: Tensor, targets: Tensor, matrix: Tensor, k: int = 10, chunk: int = 256
) -> tuple[float, Tensor]:
    """The criterion f and its subgradient (E, D) with the neighbours held fixed.

    Args:
        x: (n, D) source vectors of the pairs.
        y: (n, E) target vectors of the pairs.
        sources: (S, D) sources that count as neighbours.
        targets: (T, E) targets that count as neighbours.
        matrix: (E, D) the map R.
        k: Neighbourhood.
        chunk: Rows at a time.
    """
    n, mapped = len(x), x @ matrix.T
    near = targets[top_rows(mapped, targets, k, chunk=chunk)[1]].sum(1) / k
    from_y = top_rows(y, sources @ matrix.T, k, chunk=chunk)[1]
    near_sources = sources[from_y].sum(1) / k
    value = (-2 * (mapped * y).sum() + (mapped * near).sum() + ((near_sources @ matrix.T) * y).sum()) / n
    gradient = (-2 * y.T @ x + near.T @ x + y.T @ near_sources) / n
    return value.item(), gradient


def rcsls(
    x: Tensor,
    y: Tensor,
    sources: Tensor | None = None,
    targets: Tensor | None = None,
    settings: RcslsSettings | None = None,
    start: Tensor | None = None,
) -> Tensor:
    """A map trained by subgradient steps from Procrustes; it need not be orthogonal.

    Args:
        x: (n, D) source vectors of the training pairs; made unit vectors.
        y: (n, D) target vectors of the training pairs; made unit vectors.
        sources: (S, D) all source vectors, by frequency; default the pairs'.
        targets: (T, D) all target vectors, by frequency; default the pairs'.
        settings: How to train.
        start: (D, D) the map to start from; default Procrustes.

    Returns:
        (D, D) the map R, applied as `x R^T` to unit vectors.
    """
    check_paired("RCSLS", x, y)
    settings = settings or RcslsSettings()
    x, y = unit(real(x)), unit(real(y))
    sources, targets = (
        own if given is None else unit(real(given))[: settings.vocabulary] for given, own in ((sources, x), (targets, y))
    )
    matrix, rate = procrustes(x, y) if start is None else start, settings.rate
    value, gradient = rcsls_objective(x, y, sources, targets, matrix, settings.k)
    for _ in range(settings.iterations):
        tried = matrix - rate * gradient
        tried = clip_spectrum(tried) if settings.spectral else tried
        new_value, new_gradient = rcsls_objective(x, y, sources, targets, tried, settings.k)
        if new_value > value:
            rate /= 2
            if rate < settings.smallest_rate:
                break
            continue
        matrix, value, gradient = tried, new_value, new_gradient
    return matrix
