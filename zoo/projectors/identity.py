"""No projection at all: LLaVA's `identity`."""

from __future__ import annotations

from torch import Tensor

from ..errors import AssemblyError
from .base import Projector


class IdentityProjector(Projector):
    """The features as they are; for towers that are already as wide as what follows.

    Args:
        width_in: D_in.
        width_out: D_out, the same.

    Raises:
        AssemblyError: If the widths differ.
    """

    name = "identity"

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__(width_in, width_out)
        if width_in != width_out:
            raise AssemblyError(f"identity cannot turn width {width_in} into {width_out}; use the projector 'linear' or 'mlp'")

    def forward(self, features: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        return features
