"""Honeybee's resampler, the baseline of its abstractors: queries look at tokens and at themselves, with a gated feed-forward part.

Source: Honeybee (arXiv 2312.06742), its official code (projectors/resamplers) and configuration; it goes back to mPLUG-Owl's abstractor.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import check_heads, check_sizes
from .honeybee_parts import STD, PositionTable, ThinkTokens, required, start_small
from .resampler import Resampler


class GatedFeedForward(nn.Module):
    """`W2 LN(SiLU(W1 x) ⊙ W3 x)`, all with bias.

    Args:
        width: D.
        intermediate: Width between the maps.
    """

    def __init__(self, width: int, intermediate: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, intermediate)
        self.up = nn.Linear(width, intermediate)
        self.norm = nn.LayerNorm(intermediate, eps=1e-6)
        self.down = nn.Linear(intermediate, width)

    def forward(self, states: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        return self.down(self.norm(F.silu(self.gate(states)) * self.up(states)))


class ResamplerLayer(nn.Module):
    """`q = LN(z); z = q + Attn(q; q, LN(x)); z + FF(LN(z))`: the residual is taken after the norm, as in the official code.

    Args:
        width: D.
        heads: h.
        intermediate: Width of the feed-forward part.
        dropout: Of attention weights.
    """

    def __init__(self, width: int, heads: int, intermediate: int, dropout: float) -> None:
        super().__init__()
        self.norm_queries = nn.LayerNorm(width)
        self.norm_tokens = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, dropout=dropout, batch_first=True)
        self.norm = nn.LayerNorm(width)
        self.feed_forward = GatedFeedForward(width, intermediate)

    def forward(self, queries: Tensor, tokens: Tensor) -> Tensor:
        """Queries (B, Q, D) and tokens (B, V, D) -> (B, Q, D)."""
        queries = self.norm_queries(queries)
        seen = torch.cat([queries, self.norm_tokens(tokens)], dim=1)
        states = queries + self.attention(queries, seen, seen, need_weights=False)[0]
        return states + self.feed_forward(self.norm(states))


class HoneybeeResampler(Resampler):
    """An affine map to the resampler's width, layers, and an affine map to D_out.

    Without `positions` the order of the input's tokens does not matter.

    Args:
        width_in: D_in.
        width_out: D_out.
        tokens_in: V; needed with `positions` only.
        queries: Number of learned queries.
        hidden: Width of the layers.
        layers: Number of layers.
        heads: Heads of the attention.
        intermediate: Width of the feed-forward parts.
        dropout: Of attention weights.
        positions: A learned vector per input token, added before the first map; off in the official configuration.
        think_tokens: Learned tokens behind the queries' (`eos_tokens` of the official code).
        query_std: Deviation with which the queries start. The official code starts all from 0, where they are one and the same query.

    Raises:
        AssemblyError: If a size is below 1, the heads do not divide `hidden`, or `tokens_in` is missing.
    """

    name = "honeybee_resampler"

    def __init__(
        self,
        width_in: int,
        width_out: int,
        tokens_in: int | None = None,
        queries: int = 64,
        hidden: int = 1024,
        layers: int = 6,
        heads: int = 16,
        intermediate: int = 4096,
        dropout: float = 0.1,
        positions: bool = False,
        think_tokens: int = 0,
        query_std: float = STD,
    ) -> None:
        super().__init__(width_in, width_out, queries + think_tokens)
        check_sizes(self.name, queries=queries, hidden=hidden, layers=layers, intermediate=intermediate)
        check_heads(self.name, hidden, heads)
        self.positions = PositionTable(required(tokens_in, self.name), width_in, self.name) if positions else None
        self.project_in = nn.Linear(width_in, hidden)
        self.queries = nn.Parameter(torch.empty(queries, hidden).normal_(std=query_std))
        self.layers = nn.ModuleList(ResamplerLayer(hidden, heads, intermediate, dropout) for _ in range(layers))
        self.project_out = nn.Linear(hidden, width_out)
        self.think = ThinkTokens(think_tokens, width_out, self.name)
        start_small(self)

    def num_tokens(self, tokens: int) -> int:
        """V', for any V from 1 on; with positions for the V it was built for."""
        if self.positions is not None:
            self.positions.check(tokens)
        return super().num_tokens(tokens)

    def forward(self, features: Tensor) -> Tensor:
        """(B, V, D_in) -> (B, V', D_out)."""
        self.check_features(features)
        tokens = self.project_in(features if self.positions is None else self.positions(features))
        states = self.queries.expand(features.shape[0], -1, -1)
        for layer in self.layers:
            states = layer(states, tokens)
        return self.think(self.project_out(states))
