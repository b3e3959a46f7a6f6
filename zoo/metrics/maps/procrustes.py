"""Orthogonal Procrustes: the rotation that brings one set of vectors nearest to another (Schönemann 1966; Xing et al. 2015)."""

from __future__ import annotations

import torch
from torch import Tensor

from ...errors import AssemblyError
from ..rows import check_paired, real


def procrustes(x: Tensor, y: Tensor, identity: float = 0.0) -> Tensor:
    """The orthogonal R that minimises `||X R^T - Y||_F^2 + identity ||R - I||_F^2`: `U V^T` of the SVD of `Y^T X + identity I`.

    With `identity` 0 it is plain Procrustes (fastText's and MUSE's), whose answer is arbitrary in directions that no pair speaks of.
    Any `identity` above 0 leaves those directions as they are, which is what one wants where both sides come from one model, and makes
    few pairs in many dimensions cheap: the SVD is then of a matrix of at most 2N rows.

    Args:
        x: (N, D) source vectors, usually unit vectors.
        y: (N, D) target vectors, row by row their partners.
        identity: Weight of staying where one is; only small ones matter (1e-6 of the largest singular value settles ties).

    Returns:
        (D, D), in float64 if x is, else float32; computed in float64.

    Raises:
        AssemblyError: If widths differ.
    """
    check_paired("Procrustes", x, y)
    if x.shape[1] != y.shape[1]:
        raise AssemblyError(f"Procrustes rotates, so both sides need one width; got {x.shape[1]} and {y.shape[1]}")
    dtype, x, y = real(x).dtype, x.double(), y.double()
    if identity > 0 and 2 * len(x) < x.shape[1]:
        return _within_span(x, y, identity).to(dtype)
    return _polar(y.T @ x + identity * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)).to(dtype)


def _within_span(x: Tensor, y: Tensor, identity: float) -> Tensor:
    """The same answer where the pairs span few dimensions: outside of them it is the identity."""
    basis = torch.linalg.qr(torch.cat((x, y)).T).Q
    inner = (basis.T @ y.T) @ (x @ basis)
    eye = torch.eye(len(inner), dtype=x.dtype, device=x.device)
    return torch.eye(x.shape[1], dtype=x.dtype, device=x.device) + basis @ (_polar(inner + identity * eye) - eye) @ basis.T


def _polar(matrix: Tensor) -> Tensor:
    u, _, vh = torch.linalg.svd(matrix)
    return u @ vh


def orthogonality_step(matrix: Tensor, beta: float = 0.001) -> Tensor:
    """One step towards an orthogonal matrix: `W <- (1 + beta) W - beta (W W^T) W` (MUSE's, after each gradient step).

    Args:
        matrix: (D, D).
        beta: MUSE's default 0.001.
    """
    return (1 + beta) * matrix - beta * (matrix @ matrix.T) @ matrix


def clip_spectrum(matrix: Tensor) -> Tensor:
    """The nearest matrix whose singular values are at most 1 (fastText's spectral constraint).

    Args:
        matrix: (E, D).
    """
    u, values, vh = torch.linalg.svd(matrix, full_matrices=False)
    return (u * values.clamp(0, 1)) @ vh
