"""One affine map: the projection of CLIP's towers (without bias there) and of LLaVA's first version."""

from __future__ import annotations

from torch import Tensor, nn

from .base import Projector


class LinearProjector(Projector):
    """`W x (+ b)`, token by token; with `norm` and `dropout` the strongest cheap head on frozen features of few samples.

    Args:
        width_in: D_in.
        width_out: D_out.
        bias: Whether to add b; CLIP does not.
        norm: Layer norm on the input.
        dropout: Probability of dropping an input feature.
    """

    def __init__(self, width_in: int, width_out: int, bias: bool = False, norm: bool = False, dropout: float = 0.0) -> None:
        super().__init__(width_in, width_out)
        self.norm = nn.LayerNorm(width_in) if norm else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(width_in, width_out, bias=bias)
        nn.init.normal_(self.linear.weight, std=width_in**-0.5)

    def forward(self, features: Tensor) -> Tensor:
        """(..., D_in) -> (..., D_out)."""
        return self.linear(self.dropout(self.norm(features)))
