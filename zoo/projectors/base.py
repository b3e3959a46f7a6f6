"""The projector contract, shared by every projector of the zoo."""

from __future__ import annotations

from torch import Tensor, nn


class Projector(nn.Module):
    """Maps features (..., V, D_in) to (..., V', D_out).

    Attributes:
        width_in: D_in.
        width_out: D_out.
    """

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.width_in = width_in
        self.width_out = width_out

    def num_tokens(self, tokens: int) -> int:
        """V' for V tokens; the same for projectors that work on each token alone."""
        return tokens

    def forward(self, features: Tensor) -> Tensor:
        """(..., V, D_in) -> (..., V', D_out)."""
        raise NotImplementedError
