"""The residual projector from a language model's sentence vector to CLIP's joint space.

Source: ProCLIP (arXiv 2510.18795), class `TextProj` of its code; LLM2CLIP uses the same with other numbers. Per block
`h <- h + W2 · Dropout(GELU(W1 · LN(h)))`, then `Linear(LN(h))`. The input is L2-normalised first.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from .base import Projector


class ResidualMlpProjector(Projector):
    """Pre-norm residual blocks, then layer norm and one affine map.

    Args:
        width_in: D_in, the embedder's width.
        width_out: D_out; in ProCLIP the output width of the CLIP text tower it inherits from.
        blocks: n, the number of residual blocks.
        expansion: k, hidden width of a block in units of D_in.
        dropout: Dropout inside the blocks.
        normalize_input: L2-normalise the input (off for embedders that run online in the official code).
    """

    def __init__(
        self,
        width_in: int,
        width_out: int,
        blocks: int = 1,
        expansion: int = 8,
        dropout: float = 0.0,
        normalize_input: bool = True,
    ) -> None:
        super().__init__(width_in, width_out)
        self.normalize_input = normalize_input
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width_in),
                nn.Linear(width_in, expansion * width_in),
                nn.GELU(),
                nn.Dropout(dropout),
                nn.Linear(expansion * width_in, width_in),
            )
            for _ in range(blocks)
        )
        self.out = nn.Sequential(nn.LayerNorm(width_in), nn.Linear(width_in, width_out))

    def forward(self, features: Tensor) -> Tensor:
        """(..., D_in) -> (..., D_out)."""
        hidden = F.normalize(features, dim=-1) if self.normalize_input else features
        for block in self.blocks:
            hidden = hidden + block(hidden)
        return self.out(hidden)


class ProClipProjector(ResidualMlpProjector):
    """ProCLIP's projector: one block of expansion 8."""

    def __init__(
        self,
        width_in: int,
        width_out: int,
        blocks: int = 1,
        expansion: int = 8,
        dropout: float = 0.0,
        normalize_input: bool = True,
    ) -> None:
        super().__init__(width_in, width_out, blocks, expansion, dropout, normalize_input)


class Llm2ClipProjector(ResidualMlpProjector):
    """LLM2CLIP's projector: four blocks of expansion 2."""

    def __init__(
        self,
        width_in: int,
        width_out: int,
        blocks: int = 4,
        expansion: int = 2,
        dropout: float = 0.0,
        normalize_input: bool = True,
    ) -> None:
        super().__init__(width_in, width_out, blocks, expansion, dropout, normalize_input)
