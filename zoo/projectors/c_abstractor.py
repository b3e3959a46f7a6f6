"""Honeybee's C-Abstractor: convolutions, an adaptive average pool, convolutions, and a perceptron.

Source: Honeybee (arXiv 2312.06742), section on the C-Abstractor, and its official code; the blocks are timm's RegNet stages.
"""

from __future__ import annotations

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from .base import check_sizes
from .grid import side_of, to_map, to_tokens
from .honeybee_abstractor import Abstractor
from .honeybee_parts import PositionTable, required, start_small


class CAbstractor(Abstractor):
    """n x n tokens with learned positions, a RegNet stage, an average pool to q x q, a RegNet stage, affine maps with SiLU between.

    n need not be a multiple of q: the pool's windows then overlap.

    Args:
        width_in: D_in.
        width_out: D_out.
        tokens_in: V = n²; needed with `positions`.
        queries: q², the number of tokens behind the pool.
        hidden: Channels of the stages.
        depth: Blocks per stage; 0 leaves only the pool between positions and perceptron.
        mlp_depth: Number of affine maps at the end.
        positions: A learned vector per input token.
        norm: Layer norm on the input; off in the official configuration.
        think_tokens: Learned tokens behind the others (`eos_tokens` of the official code).

    Raises:
        AssemblyError: If `queries` is no square number, a size is too small, or `tokens_in` is missing or no square number.
    """

    name = "c_abstractor"

    def __init__(
        self,
        width_in: int,
        width_out: int,
        tokens_in: int | None = None,
        queries: int = 144,
        hidden: int = 1024,
        depth: int = 3,
        mlp_depth: int = 2,
        positions: bool = True,
        norm: bool = False,
        think_tokens: int = 0,
    ) -> None:
        super().__init__(width_in, width_out, queries, think_tokens, think_width=width_out)
        check_sizes(self.name, hidden=hidden, mlp_depth=mlp_depth, depth=depth + 1)
        self.norm = nn.LayerNorm(width_in) if norm else nn.Identity()
        self.positions = None
        if positions:
            tokens = required(tokens_in, self.name)
            side_of(tokens, self.name)
            self.positions = PositionTable(tokens, width_in, self.name)
        self.before = _stage(depth, width_in, hidden)
        self.after = _stage(depth, hidden, hidden)
        self.readout = _perceptron(mlp_depth, hidden if depth else width_in, width_out)
        start_small(self)

    def check_tokens(self, tokens: int) -> None:
        """Refuses what is no square grid, and with positions another V than it was built for."""
        if self.positions is not None:
            self.positions.check(tokens)
        side_of(tokens, self.name)

    def forward(self, features: Tensor) -> Tensor:
        """(B, n², D_in) -> (B, q² + k, D_out)."""
        self.check_features(features)
        features = self.norm(features)
        maps = to_map(features if self.positions is None else self.positions(features), self.name)
        pooled = self.after(F.adaptive_avg_pool2d(self.before(maps), self.side))
        return self.think(self.readout(to_tokens(pooled)))


def _stage(depth: int, width_in: int, width: int) -> nn.Module:
    """A RegNet stage of stride 1: bottleneck blocks with squeeze-and-excitation, SiLU, and layer norm over channels."""
    from timm.layers import LayerNorm2d
    from timm.models.regnet import RegStage

    if not depth:
        return nn.Identity()
    block = partial(RegStage, stride=1, dilation=1, act_layer=nn.SiLU, norm_layer=LayerNorm2d)
    return block(depth, width_in, width)


def _perceptron(depth: int, width_in: int, width_out: int) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Linear(width_in, width_out)]
    for _ in range(depth - 1):
        layers += [nn.SiLU(), nn.Linear(width_out, width_out)]
    return nn.Sequential(*layers)
