"""Which alignment levels a question about a picture needs: the gate of AlignGPT and the vector that it weighs together.

Source: AlignGPT (arXiv 2405.14129), section 3.3, and its official code.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def mean_embedding(embeddings: Tensor, chosen: Tensor) -> Tensor:
    """The mean embedding of the chosen tokens of a row, zero where none is chosen.

    Args:
        embeddings: (B, T, D).
        chosen: (B, T), True where a token counts.

    Returns:
        (B, D).
    """
    weights = chosen.to(embeddings.dtype)
    return torch.einsum("bt,btd->bd", weights, embeddings) / (weights.sum(1, keepdim=True) + 1e-8)


def combined_level(table: Tensor, weights: Tensor) -> Tensor:
    """`h = H[N-1] + sum_i alpha_i H[i]`: the best aligned level as a whole, and the others as the gate weighs them.

    Args:
        table: H (N, D).
        weights: alpha (B, N - 1).

    Returns:
        (B, D).
    """
    return table[-1] + weights.to(table.dtype) @ table[:-1]


class LevelGate(nn.Module):
    """`alpha = softmax(W2 GELU(W1 d))` of the products `d_j = <v_j, t>` of a picture's V tokens with the mean text embedding.

    At V = 576 and 8 levels it has 149,511 parameters.

    Args:
        tokens: V.
        levels: N; the gate weighs N - 1 of them.
        hidden: Width between its two layers.
    """

    def __init__(self, tokens: int, levels: int, hidden: int = 256) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(tokens, hidden), nn.GELU(), nn.Linear(hidden, levels - 1))

    def forward(self, products: Tensor) -> Tensor:
        """Products d (B, V) -> alpha (B, N - 1), which sum to 1."""
        return self.layers(products).softmax(-1)
