"""LLaVA-NeXT's pooler: a quarter of the tokens through one strided convolution.

Source: LLaVA-NeXT's official code (multimodal_projector/pooler_projector).
"""

from __future__ import annotations

from torch import Tensor, nn

from ..errors import AssemblyError
from .grid import GridProjector, to_map, to_tokens


class PoolerProjector(GridProjector):
    """`W GELU(conv(x)) + b` with a 2 x 2 convolution of stride 2 from D_in to D_out: 576 tokens become 144.

    Args:
        width_in: D_in.
        width_out: D_out.
    """

    name = "pooler"

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__(width_in, width_out)
        self.pool = nn.Conv2d(width_in, width_out, kernel_size=2, stride=2)
        self.project = nn.Sequential(nn.GELU(), nn.Linear(width_out, width_out))

    def out_side(self, side: int) -> int:
        """The side n / 2; an odd n is refused, where the official code would drop the last row and column."""
        if side % 2:
            raise AssemblyError(
                f"pooler halves the side of a grid, and {side} is odd; use the projector 'spatial_pool' with stride 2"
            )
        return side // 2

    def forward(self, features: Tensor) -> Tensor:
        """(B, n², D_in) -> (B, n² / 4, D_out)."""
        maps = to_map(features, self.name)
        self.out_side(maps.shape[-1])
        return self.project(to_tokens(self.pool(maps)))
