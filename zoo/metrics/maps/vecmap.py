"""The steps of VecMap's mapping (Artetxe et al. 2018): normalise, whiten, rotate, re-weight, de-whiten, cut.

Both languages are mapped, into a space of their own: `x A` and `z B` are compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ...errors import DataError
from ..rows import check_choice, check_paired, real, unit

Normalisation = Literal["unit", "center"]
STEPS: tuple[Normalisation, ...] = ("unit", "center", "unit")


def normalised(vectors: Tensor, steps: Sequence[Normalisation] = STEPS) -> Tensor:
    """Vectors after VecMap's normalisation, by default to unit length, zero mean of each dimension, unit length again.

    Args:
        vectors: (N, D).
        steps: `unit` and `center`, in order.
    """
    vectors = real(vectors)
    for step in steps:
        check_choice("normalisation", step, ("unit", "center"))
        vectors = unit(vectors) if step == "unit" else vectors - vectors.mean(0)
    return vectors


def whitening(vectors: Tensor) -> Tensor:
    """(D, D) `W = (X^T X)^(-1/2)`: `X W` has orthonormal columns.

    Args:
        vectors: (N, D) of full rank, so N >= D.

    Raises:
        DataError: If the rank is smaller.
    """
    _, values, vh = torch.linalg.svd(vectors, full_matrices=False)
    if len(vectors) < vectors.shape[1] or values[-1] <= values[0] * torch.finfo(values.dtype).eps * len(vectors):
        raise DataError(
            f"whitening needs dictionary vectors that span all {vectors.shape[1]} dimensions, these {len(vectors)} do not; "
            "take a larger dictionary, fewer dimensions, or plain Procrustes"
        )
    return (vh.T / values) @ vh


@dataclass
class AdvancedMap:
    """VecMap's map of both languages.

    Attributes:
        source: (D, d) A; a source vector becomes `x A`.
        target: (D, d) B; a target vector becomes `z B`.
    """

    source: Tensor
    target: Tensor


def advanced_map(
    x: Tensor,
    z: Tensor,
    *,
    reweight: tuple[float, float] = (0.5, 0.5),
    dewhiten: bool = True,
    dimensions: int | None = None,
) -> AdvancedMap:
    """The whole sequence, learnt from paired dictionary vectors.

    With `W_x`, `W_z` the whitenings and `U S V^T` the SVD of `(X W_x)^T (Z W_z)`:
    `A = W_x U S^p (U^T W_x^-1 U)`, `B = W_z V S^q (V^T W_z^-1 V)`, then the first dimensions of both.

    Args:
        x: (n, D) normalised source vectors of the dictionary.
        z: (n, D) normalised target vectors, row by row their translations.
        reweight: Exponents p and q of the singular values.
        dewhiten: Give each language its own scale back.
        dimensions: Keep so many dimensions, the most correlated first; None keeps all.

    Raises:
        DataError: If rows are not paired, or do not span the space.
    """
    check_paired("VecMap", x, z)
    x, z = real(x), real(z)
    white_x, white_z = whitening(x), whitening(z)
    u, values, vh = torch.linalg.svd((x @ white_x).T @ (z @ white_z))
    parts = []
    for white, turn, power in ((white_x, u, reweight[0]), (white_z, vh.T, reweight[1])):
        matrix = (white @ turn) * values**power
        if dewhiten:
            matrix = matrix @ turn.T @ torch.linalg.inv(white) @ turn
        parts.append(matrix[:, :dimensions])
    return AdvancedMap(*parts)
