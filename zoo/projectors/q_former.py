"""The Q-Former: a small BERT of learned queries that looks at the picture in every second layer.

Source: BLIP-2 (arXiv 2301.12597) and mBLIP (arXiv 2307.06930), whose linear layer to the language model is new; the body is that of
transformers, so published weights fit it. Queries see no text here; InstructBLIP's second branch is not part of it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .base import check_heads, check_sizes
from .resampler import Resampler


class QFormerProjector(Resampler):
    """32 queries through a post-norm transformer with cross-attention in layers 0, 2, 4, …, then one affine map.

    No position is added to the picture's tokens, so their order does not matter.

    Args:
        width_in: D_in, the width that cross-attention reads; 1408 in BLIP-2.
        width_out: D_out.
        queries: The number of tokens that come out; they start from a normal of deviation 0.02.
        hidden: Width of the queries.
        layers: Number of layers.
        heads: Heads of both attentions.
        intermediate: Hidden width of the feed-forward parts.
        cross_every: Cross-attention in every how many layers, from the first on.
        dropout: Of attention weights and of hidden states.

    Raises:
        AssemblyError: If a size is below 1 or the heads do not divide `hidden`.
    """

    name = "q_former"

    def __init__(
        self,
        width_in: int,
        width_out: int,
        queries: int = 32,
        hidden: int = 768,
        layers: int = 12,
        heads: int = 12,
        intermediate: int = 3072,
        cross_every: int = 2,
        dropout: float = 0.1,
    ) -> None:
        from transformers import Blip2QFormerConfig, Blip2QFormerModel

        super().__init__(width_in, width_out, queries)
        check_sizes(self.name, queries=queries, hidden=hidden, layers=layers, intermediate=intermediate, cross_every=cross_every)
        check_heads(self.name, hidden, heads)
        self.queries = nn.Parameter(torch.empty(queries, hidden).normal_(std=0.02))
        self.body = Blip2QFormerModel(
            Blip2QFormerConfig(
                hidden_size=hidden,
                num_hidden_layers=layers,
                num_attention_heads=heads,
                intermediate_size=intermediate,
                hidden_dropout_prob=dropout,
                attention_probs_dropout_prob=dropout,
                cross_attention_frequency=cross_every,
                encoder_hidden_size=width_in,
            )
        )
        self.project = nn.Linear(hidden, width_out)

    def forward(self, features: Tensor) -> Tensor:
        """(B, V, D_in) -> (B, queries, D_out)."""
        self.check_features(features)
        queries = self.queries.expand(features.shape[0], -1, -1)
        return self.project(self.body(query_embeds=queries, encoder_hidden_states=features).last_hidden_state)
