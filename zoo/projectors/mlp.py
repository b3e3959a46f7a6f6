"""A plain multi-layer perceptron with GELU, token by token."""

from __future__ import annotations

from torch import Tensor, nn

from ..errors import AssemblyError
from .base import Projector


class MlpProjector(Projector):
    """`depth` affine maps with GELU (and dropout) between them.

    Args:
        width_in: D_in.
        width_out: D_out.
        depth: Number of affine maps, at least 2.
        hidden: Width between them; default D_out.
        dropout: Probability of dropping a hidden unit.
        norm: Layer norm on the input, which lets features of any scale in.
        skip: Adds a linear map of the input to the output.

    Raises:
        AssemblyError: If `depth` is below 2.
    """

    def __init__(
        self,
        width_in: int,
        width_out: int,
        depth: int = 2,
        hidden: int | None = None,
        dropout: float = 0.0,
        norm: bool = False,
        skip: bool = False,
    ) -> None:
        super().__init__(width_in, width_out)
        if depth < 2:
            raise AssemblyError(f"an mlp projector has depth 2 or more, not {depth}; use the projector 'linear' for one map")
        widths = [width_in, *[hidden or width_out] * (depth - 1), width_out]
        self.norm = nn.LayerNorm(width_in) if norm else nn.Identity()
        layers: list[nn.Module] = []
        for index in range(depth):
            layers.append(nn.Linear(widths[index], widths[index + 1]))
            if index < depth - 1:
                layers += [nn.GELU(), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*layers)
        self.skip = nn.Linear(width_in, width_out, bias=False) if skip else None

    def forward(self, features: Tensor) -> Tensor:
        """(..., D_in) -> (..., D_out)."""
        features = self.norm(features)
        projected = self.layers(features)
        return projected if self.skip is None else projected + self.skip(features)
