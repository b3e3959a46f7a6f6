"""What follows a resampler or a pool to reach the language model's width: LLaVA's own projector, in one of its two forms."""

from __future__ import annotations

from typing import Literal

from .base import Projector
from .linear import LinearProjector
from .mlp import MlpProjector

Then = Literal["linear", "mlp"]


def projection(then: Then, width_in: int, width_out: int) -> Projector:
    """LLaVA's projection, token by token.

    Args:
        then: `linear`, one affine map, or `mlp`, two with GELU between them (`mlp2x_gelu`).
        width_in: D_in.
        width_out: D_out.

    Returns:
        (..., D_in) -> (..., D_out).
    """
    return LinearProjector(width_in, width_out, bias=True) if then == "linear" else MlpProjector(width_in, width_out)
