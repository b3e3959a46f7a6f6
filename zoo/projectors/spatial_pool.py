"""Pooling on the grid, and LLaVA's projection before or behind it.

Source: LLaVA-NeXT's official code. With `pool: before` this stands for its resampler `spatial_pool` followed by its projector; with
`pool: after`, mode bilinear and stride 2 for what LLaVA-OneVision does with the frames of a video (729 tokens become 196).
"""

from __future__ import annotations

import math
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import AssemblyError
from .base import check_sizes
from .grid import GridProjector, to_map, to_tokens
from .projection import Then, projection

Mode = Literal["average", "max", "bilinear", "conv"]


class SpatialPoolProjector(GridProjector):
    """n x n tokens become ⌈n / s⌉ x ⌈n / s⌉, by a pool over s x s windows or by resizing, and are projected.

    Args:
        width_in: D_in.
        width_out: D_out.
        mode: `average` or `max` over windows, `bilinear` resizing (pixel centres, no smoothing), or `conv`, a convolution of kernel and
            stride s that keeps the width.
        stride: s.
        edge: What becomes of windows that reach over the last row or column. `keep`: they count with what they have (`conv` sees zeros
            beyond the edge), and all modes give ⌈n / s⌉. `drop`: they are left out, and all modes give ⌊n / s⌋, which is what the
            official code does for all modes but bilinear.
        then: The projection: `linear` or `mlp` (two affine maps with GELU between them).
        pool: Whether to pool `before` the projection, in width D_in, or `after` it, in width D_out.

    Raises:
        AssemblyError: If the stride is below 1.
    """

    name = "spatial_pool"

    def __init__(
        self,
        width_in: int,
        width_out: int,
        mode: Mode = "bilinear",
        stride: int = 2,
        edge: Literal["keep", "drop"] = "keep",
        then: Then = "mlp",
        pool: Literal["before", "after"] = "before",
    ) -> None:
        super().__init__(width_in, width_out)
        check_sizes(self.name, stride=stride)
        self.mode, self.stride, self.edge, self.pool_first = mode, stride, edge, pool == "before"
        pooled_width = width_in if self.pool_first else width_out
        self.conv = nn.Conv2d(pooled_width, pooled_width, kernel_size=stride, stride=stride) if mode == "conv" else None
        self.project = projection(then, width_in, width_out)

    def out_side(self, side: int) -> int:
        """⌈n / s⌉, or ⌊n / s⌋ where the edge is dropped; a grid of which nothing is left is refused."""
        if self.edge == "keep":
            return math.ceil(side / self.stride)
        if side < self.stride:
            raise AssemblyError(
                f"spatial_pool: no window of {self.stride} fits into a grid of side {side}; take a smaller stride or edge keep"
            )
        return side // self.stride

    def forward(self, features: Tensor) -> Tensor:
        """(B, n², D_in) -> (B, V', D_out)."""
        if self.pool_first:
            return self.project(self._pooled(features))
        return self._pooled(self.project(features))

    def _pooled(self, features: Tensor) -> Tensor:
        maps = to_map(features, self.name)
        side, out = maps.shape[-1], self.out_side(maps.shape[-1])
        if self.mode == "bilinear":
            return to_tokens(F.interpolate(maps, size=(out, out), mode="bilinear", align_corners=False))
        if self.mode == "average":
            return to_tokens(F.avg_pool2d(maps, self.stride, ceil_mode=self.edge == "keep"))
        if self.mode == "max":
            return to_tokens(F.max_pool2d(maps, self.stride, ceil_mode=self.edge == "keep"))
        assert self.conv is not None
        missing = max(out * self.stride - side, 0)
        return to_tokens(self.conv(F.pad(maps, (0, missing, 0, missing))))
