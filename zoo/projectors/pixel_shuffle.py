"""Space to depth: r x r neighbouring tokens become one that is r² times as wide, then one or two affine maps.

Source: InternVL (arXiv 2404.16821, `pixel_shuffle` and `mlp1` of its code) and nanoVLM. Both put the r² tokens of a cell behind each
other row by row, so their weights fit.
"""

from __future__ import annotations

from torch import Tensor, nn

from ..errors import AssemblyError
from .base import check_sizes
from .grid import GridProjector, to_map
from .projection import Then


def space_to_depth(maps: Tensor, factor: int) -> Tensor:
    """Puts the tokens of every r x r cell behind each other.

    Args:
        maps: (B, D, n, n).
        factor: r, a divisor of n.

    Returns:
        (B, (n / r)², r² D); coordinates in the order row in the cell, column in the cell, coordinate of the token.
    """
    cells = maps.unflatten(3, (-1, factor)).unflatten(2, (-1, factor))
    batch, width, rows, _, columns, _ = cells.shape
    return cells.permute(0, 2, 4, 3, 5, 1).reshape(batch, rows * columns, factor * factor * width)


class PixelShuffleProjector(GridProjector):
    """Space to depth, then layer norm and two affine maps (InternVL: 1024 tokens become 256), or one linear map (nanoVLM).

    Args:
        width_in: D_in.
        width_out: D_out.
        factor: r, which must divide the side of the grid.
        then: `mlp`, two affine maps with GELU between them (InternVL), or `linear`, one without bias (nanoVLM, normal start of
            deviation 0.02).
        norm: Layer norm on the widened tokens; null takes it as published: with `mlp`, not with `linear`.

    Raises:
        AssemblyError: If the factor is below 1.
    """

    name = "pixel_shuffle"

    def __init__(self, width_in: int, width_out: int, factor: int = 2, then: Then = "mlp", norm: bool | None = None) -> None:
        super().__init__(width_in, width_out)
        check_sizes(self.name, factor=factor)
        self.factor = factor
        wide = factor * factor * width_in
        with_norm = then == "mlp" if norm is None else norm
        self.norm = nn.LayerNorm(wide) if with_norm else nn.Identity()
        if then == "mlp":
            self.project: nn.Module = nn.Sequential(nn.Linear(wide, width_out), nn.GELU(), nn.Linear(width_out, width_out))
        else:
            self.project = nn.Linear(wide, width_out, bias=False)
            nn.init.normal_(self.project.weight, std=0.02)

    def out_side(self, side: int) -> int:
        """The side n / r; a side that r does not divide is refused."""
        if side % self.factor:
            raise AssemblyError(
                f"pixel_shuffle: the factor {self.factor} does not divide the grid's side {side}; take a divisor of it, or the "
                "projector 'spatial_pool'"
            )
        return side // self.factor

    def forward(self, features: Tensor) -> Tensor:
        """(B, n², D_in) -> (B, (n / r)², D_out)."""
        maps = to_map(features, self.name)
        self.out_side(maps.shape[-1])
        return self.project(self.norm(space_to_depth(maps, self.factor)))
