"""LLaVA-NeXT's perceptron with residual blocks behind it, `mlp{n}x_res{m}x_gelu`.

Source: LLaVA-NeXT's official code (multimodal_projector/builder). Not to be confused with `residual_mlp`, ProCLIP's projector, whose
blocks come first and add to the input as it was before the norm.
"""

from __future__ import annotations

from torch import Tensor, nn

from .base import Projector, check_sizes


class NormedResidual(nn.Module):
    """`z = LN(x); z + W2 GELU(W1 z + b1) + b2`: the residual is taken after the norm.

    Args:
        width: D.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.layers = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, features: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        normed = self.norm(features)
        return normed + self.layers(normed)


class MlpResidualProjector(Projector):
    """n affine maps with GELU between them, then m residual blocks of the output's width; token by token.

    Args:
        width_in: D_in.
        width_out: D_out.
        depth: n, the number of affine maps in front.
        blocks: m, the number of residual blocks.

    Raises:
        AssemblyError: If `depth` or `blocks` is below 1.
    """

    name = "mlp_residual"

    def __init__(self, width_in: int, width_out: int, depth: int = 2, blocks: int = 2) -> None:
        super().__init__(width_in, width_out)
        check_sizes(self.name, depth=depth, blocks=blocks)
        layers: list[nn.Module] = [nn.Linear(width_in, width_out)]
        for _ in range(depth - 1):
            layers += [nn.GELU(), nn.Linear(width_out, width_out)]
        self.layers = nn.Sequential(*layers)
        self.blocks = nn.Sequential(*(NormedResidual(width_out) for _ in range(blocks)))

    def forward(self, features: Tensor) -> Tensor:
        """(..., D_in) -> (..., D_out)."""
        return self.blocks(self.layers(features))
