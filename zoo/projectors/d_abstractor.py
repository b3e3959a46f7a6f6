"""Honeybee's D-Abstractor: a decoder whose queries sit on a q x q grid and look at the picture through deformable attention.

Source: Honeybee (arXiv 2312.06742), section on the D-Abstractor, and its official code, with the sizes of transformers'
`DeformableDetrConfig` where its configuration is silent (8 heads, 4 points, feed-forward width 1024, dropout 0.1). Two differences:
deformable attention starts as in Deformable DETR, where the official code overwrites that with its general start; and only one level.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import check_heads, check_sizes
from .deformable_attention import DeformableAttention
from .grid import side_of, to_map, to_tokens
from .honeybee_abstractor import Abstractor
from .honeybee_parts import STD, PositionTable, check_built_for, required, start_small


class DeformableDecoderLayer(nn.Module):
    """Self-attention among queries, deformable attention to the picture, feed-forward with ReLU; layer norm behind each residual.

    Positions are added to queries and keys, not to values.

    Args:
        width: D.
        heads: h of both attentions.
        points: Places per head and query.
        intermediate: Width of the feed-forward part.
        dropout: Behind each part.
    """

    def __init__(self, width: int, heads: int, points: int, intermediate: int, dropout: float) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.deformable = DeformableAttention(width, heads, points)
        self.feed_forward = nn.Sequential(nn.Linear(width, intermediate), nn.ReLU(), nn.Linear(intermediate, width))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: Tensor, positions: Tensor, memory: Tensor, references: Tensor, side: int) -> Tensor:
        """States and positions (B, Q, D), memory (B, n², D), references (Q, 2) -> (B, Q, D)."""
        placed = states + positions
        states = self._add(0, states, self.attention(placed, placed, states, need_weights=False)[0])
        states = self._add(1, states, self.deformable(states + positions, memory, references, side))
        return self._add(2, states, self.feed_forward(states))

    def _add(self, part: int, states: Tensor, new: Tensor) -> Tensor:
        return self.norms[part](states + self.dropout(new))


class DAbstractor(Abstractor):
    """n x n tokens with learned positions, q x q queries, deformable decoder layers, an affine map.

    Half of a query is learned, half is the picture pooled to q x q: its state and its position, or the other way round. A query's
    reference point starts on a uniform grid and is learned.

    Args:
        width_in: D_in; where it is not `hidden`, an affine map comes first.
        width_out: D_out; where it is not `hidden`, an affine map comes last.
        tokens_in: V = n², always needed.
        queries: q².
        hidden: Width of the decoder.
        layers: Number of decoder layers.
        heads: Heads of both attentions.
        points: Places per head and query.
        intermediate: Width of the feed-forward parts.
        dropout: Behind each part of a layer.
        pooled: What the pooled picture is: the queries' `position`, as in the official configuration, or their first `state`.
        positions: A learned vector per input token.
        think_tokens: Learned tokens behind the others (`eos_tokens` of the official code).

    Raises:
        AssemblyError: If `queries` is no square number, a size is too small, the heads do not divide `hidden`, or `tokens_in` is
            missing or no square number.
    """

    name = "d_abstractor"

    def __init__(
        self,
        width_in: int,
        width_out: int,
        tokens_in: int | None = None,
        queries: int = 144,
        hidden: int = 1024,
        layers: int = 6,
        heads: int = 8,
        points: int = 4,
        intermediate: int = 1024,
        dropout: float = 0.1,
        pooled: Literal["position", "state"] = "position",
        positions: bool = True,
        think_tokens: int = 0,
    ) -> None:
        super().__init__(width_in, width_out, queries, think_tokens, think_width=hidden)
        check_sizes(self.name, hidden=hidden, layers=layers, points=points, intermediate=intermediate)
        check_heads(self.name, hidden, heads)
        self.tokens_in = required(tokens_in, self.name)
        self.side_in = side_of(self.tokens_in, self.name)
        self.pooled_is_position = pooled == "position"
        self.project_in = nn.Linear(width_in, hidden) if width_in != hidden else nn.Identity()
        self.positions = PositionTable(self.tokens_in, hidden, self.name) if positions else nn.Identity()
        self.queries = nn.Parameter(torch.empty(queries, hidden).normal_(std=STD))
        self.references = nn.Parameter(uniform_points(self.side, self.side_in))
        self.layers = nn.ModuleList(DeformableDecoderLayer(hidden, heads, points, intermediate, dropout) for _ in range(layers))
        self.project_out = nn.Linear(hidden, width_out) if hidden != width_out else nn.Identity()
        self._start()

    def _start(self) -> None:
        start_small(self)
        for part in self.modules():
            if isinstance(part, DeformableAttention):
                part.reset()

    def check_tokens(self, tokens: int) -> None:
        """Refuses another V than it was built for."""
        check_built_for(self.tokens_in, tokens, self.name)

    def forward(self, features: Tensor) -> Tensor:
        """(B, n², D_in) -> (B, q² + k, D_out)."""
        self.check_features(features)
        memory = self.positions(self.project_in(features))
        pooled = to_tokens(F.adaptive_avg_pool2d(to_map(memory, self.name), self.side))
        learned = self.queries.expand_as(pooled)
        states, positions = (learned, pooled) if self.pooled_is_position else (pooled, learned)
        for layer in self.layers:
            states = layer(states, positions, memory, self.references, self.side_in)
        return self.project_out(self.think(states))


def uniform_points(side: int, side_in: int) -> Tensor:
    """Where the queries first look: a uniform grid from the middle of the first cell to that of the last.

    Args:
        side: q.
        side_in: n.

    Returns:
        (q², 2), x and y in [0, 1], row by row.
    """
    line = torch.linspace(0.5, side_in - 0.5, side) / side_in
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([x, y], dim=-1).flatten(0, 1)
