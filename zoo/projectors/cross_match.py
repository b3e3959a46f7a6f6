"""Cross-modal match: tokens of one modality rewritten as mixtures of a dictionary of the other.

Source: CALF (arXiv 2403.07300), section on the cross-modal match module: attention with the series' tokens as queries and the
principal word embeddings as keys and values; no residual, no norm, no dropout.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import AssemblyError
from .base import Projector


class CrossMatch(Projector):
    """`s = W_o concat_h softmax(q_h K_hᵀ / √d_h) V_h + b_o`, queries from tokens, keys and values from a dictionary.

    The dictionary is the same for every sample, so its keys and values are computed once per call, and all samples' queries are one
    sequence; the result is that of `torch.nn.MultiheadAttention`, whose parameters these are.

    Args:
        width: D.
        heads: h.

    Raises:
        AssemblyError: If the heads do not divide the width.
    """

    def __init__(self, width: int, heads: int = 12) -> None:
        super().__init__(width, width)
        if width % heads:
            raise AssemblyError(f"model.heads: {heads} do not divide the language model's width {width}; take a divisor of it")
        self.heads = heads
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)

    def forward(self, features: Tensor, dictionary: Tensor | None = None) -> Tensor:
        """Rewrites tokens.

        Args:
            features: (B, V, D).
            dictionary: (K, D).

        Returns:
            (B, V, D), every row an affine map of a mixture of dictionary rows.

        Raises:
            AssemblyError: If no dictionary is given.
        """
        if dictionary is None:
            raise AssemblyError("cross_match rewrites tokens by a dictionary, and none was given")
        query_w, key_w, value_w = self.attention.in_proj_weight.chunk(3)
        query_b, key_b, value_b = self.attention.in_proj_bias.chunk(3)
        query = self._split(F.linear(features.flatten(0, 1), query_w, query_b))
        key = self._split(F.linear(dictionary, key_w, key_b))
        value = self._split(F.linear(dictionary, value_w, value_b))
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.attention.out_proj(mixed[0].transpose(0, 1).reshape(features.shape))

    def _split(self, rows: Tensor) -> Tensor:
        """(N, D) -> (1, h, N, D / h)."""
        return rows.view(1, rows.shape[0], self.heads, -1).transpose(1, 2)
