"""CLIP's own projection as a module: a matrix, multiplied from the right as open_clip does it."""

from __future__ import annotations

from torch import Tensor, nn


class MatrixProjection(nn.Module):
    """`x W`, W (D_in, D_out); the transpose of a linear layer, kept as it is because the two differ in their last bits.

    Args:
        weight: W, which becomes this module's.
    """

    def __init__(self, weight: nn.Parameter) -> None:
        super().__init__()
        self.weight = weight
        self.width_in, self.width_out = (int(size) for size in weight.shape)

    def forward(self, features: Tensor) -> Tensor:
        """(..., D_in) -> (..., D_out)."""
        return features @ self.weight
