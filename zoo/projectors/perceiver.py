"""The perceiver resampler: a few learned latents look at all tokens, layer by layer.

Source: Flamingo (arXiv 2204.14198), section on the perceiver resampler, in the form of LLaVA-NeXT's official code
(multimodal_resampler/perceiver), without embeddings of frames and media. LLaVA's projector follows, as it does there.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import check_sizes
from .projection import Then, projection
from .resampler import Resampler


class PerceiverAttention(nn.Module):
    """`W_o softmax(q Kᵀ / √d) V` with queries from normed latents, and keys and values from normed tokens and latents; no bias.

    Args:
        width: D.
        heads: h.
        head_width: d.
    """

    def __init__(self, width: int, heads: int, head_width: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_tokens = nn.LayerNorm(width)
        self.norm_latents = nn.LayerNorm(width)
        self.query = nn.Linear(width, heads * head_width, bias=False)
        self.key_value = nn.Linear(width, 2 * heads * head_width, bias=False)
        self.out = nn.Linear(heads * head_width, width, bias=False)

    def forward(self, tokens: Tensor, latents: Tensor) -> Tensor:
        """Tokens (B, V, D) and latents (B, L, D) -> (B, L, D), without the residual."""
        latents = self.norm_latents(latents)
        seen = torch.cat([self.norm_tokens(tokens), latents], dim=1)
        query, key, value = (self._split(part) for part in (self.query(latents), *self.key_value(seen).chunk(2, dim=-1)))
        return self.out(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))

    def _split(self, states: Tensor) -> Tensor:
        """(B, N, h d) -> (B, h, N, d)."""
        return states.unflatten(2, (self.heads, -1)).transpose(1, 2)


class PerceiverProjector(Resampler):
    """L latents, per layer `z <- z + Attn(z; x, z)` and `z <- z + W2 GELU(W1 LN(z))`, a last layer norm, and a projection.

    Nothing tells one place of the input from another, so the order of its tokens does not matter.

    Args:
        width_in: D_in, the width of the latents too.
        width_out: D_out.
        latents: L, the number of tokens that come out; they start from a standard normal.
        depth: Number of layers.
        heads: Heads of the attention.
        head_width: Width of one head.
        expansion: Hidden width of the feed-forward part in units of D_in.
        then: The projection: `linear` or `mlp` (two affine maps with GELU between them).

    Raises:
        AssemblyError: If a size is below 1.
    """

    name = "perceiver"

    def __init__(
        self,
        width_in: int,
        width_out: int,
        latents: int = 64,
        depth: int = 6,
        heads: int = 8,
        head_width: int = 64,
        expansion: int = 4,
        then: Then = "mlp",
    ) -> None:
        super().__init__(width_in, width_out, latents)
        check_sizes(self.name, latents=latents, depth=depth, heads=heads, head_width=head_width, expansion=expansion)
        self.latents = nn.Parameter(torch.randn(latents, width_in))
        self.attentions = nn.ModuleList(PerceiverAttention(width_in, heads, head_width) for _ in range(depth))
        self.feed_forwards = nn.ModuleList(_feed_forward(width_in, expansion) for _ in range(depth))
        self.norm = nn.LayerNorm(width_in)
        self.project = projection(then, width_in, width_out)

    def forward(self, features: Tensor) -> Tensor:
        """(B, V, D_in) -> (B, L, D_out)."""
        self.check_features(features)
        latents = self.latents.expand(features.shape[0], -1, -1)
        for attention, feed_forward in zip(self.attentions, self.feed_forwards, strict=True):
            latents = latents + attention(features, latents)
            latents = latents + feed_forward(latents)
        return self.project(self.norm(latents))


def _feed_forward(width: int, expansion: int) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(width),
        nn.Linear(width, expansion * width, bias=False),
        nn.GELU(),
        nn.Linear(expansion * width, width, bias=False),
    )
