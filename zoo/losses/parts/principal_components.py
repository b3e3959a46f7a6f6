"""Reconstruction of a batch from its first principal components, with an exact and stable gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .precision import at_least_float32, no_autocast


def principal_reconstruction(rows: Tensor, components: int) -> Tensor:
    """`μ + (X - μ) V_k V_kᵀ`: centre, project on the first k principal components, reconstruct, add the mean; not re-normalised.

    Equal to a singular value decomposition in value and gradient, but differentiated through the projector `V_k V_kᵀ`, which depends
    on the gap between component k and k+1 only; the decomposition's own derivative also divides by the gaps inside the first k and
    is infinite where two of them are equal. Source: Long-CLIP (arXiv 2403.15378), as in its official code.

    Args:
        rows: X (B, D).
        components: k.

    Returns:
        (B, D); the rows themselves where k is no restriction (k >= B - 1 or k >= D).
    """
    if components >= min(len(rows) - 1, rows.shape[1]):
        return rows
    with no_autocast(rows):
        rows = at_least_float32(rows)
        mean = rows.mean(0)
        centred = rows - mean
        if len(rows) < rows.shape[1]:  # the smaller of the two Gram matrices; both give the same reconstruction
            return mean + _Projector.apply(centred @ centred.T, components) @ centred
        return mean + centred @ _Projector.apply(centred.T @ centred, components)


class _Projector(torch.autograd.Function):
    """Symmetric C -> V_k V_kᵀ of the k largest eigenvalues.

    Backward: `C̄ = V (F ∘ Vᵀ Ḡ V) Vᵀ` with Ḡ symmetrised and `F_ij = 1 / (λ_i - λ_j)` between a kept and a dropped eigenvector, 0
    inside either group (first-order perturbation of an invariant subspace). Where a kept and a dropped eigenvalue are equal to working
    precision the subspace is not unique and has no derivative in that direction; the gradient there is 0.
    """

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, components: int) -> Tensor:
        values, vectors = torch.linalg.eigh(matrix)
        ctx.save_for_backward(values, vectors)
        ctx.components = components
        kept = vectors[:, -components:]
        return kept @ kept.T

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        values, vectors = ctx.saved_tensors
        dropped, kept = values[: -ctx.components], values[-ctx.components :]
        gap = kept[:, None] - dropped[None, :]
        inner = vectors[:, -ctx.components :].T @ (0.5 * (grad + grad.T)) @ vectors[:, : -ctx.components]
        equal = gap <= 8 * torch.finfo(values.dtype).eps * values[-1]
        half = vectors[:, -ctx.components :] @ torch.where(equal, 0.0, inner / gap) @ vectors[:, : -ctx.components].T
        return half + half.T, None
