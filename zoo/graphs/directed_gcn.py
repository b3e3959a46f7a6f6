"""Graph convolution over tokens with directed, weighted edges (Kipf and Welling 2017), without a graph library."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DirectedGcn(nn.Module):
    """`out_i = Σ_(j -> i, and i itself) w_ji / sqrt(deg_j deg_i) · W h_j + b`; no residual, no nonlinearity.

    Rows do not see one another. With no edge it is a linear layer. Weights start as torch_geometric's do: Glorot uniform, bias 0.

    Args:
        width: D.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width, width))
        self.bias = nn.Parameter(torch.zeros(width))
        nn.init.xavier_uniform_(self.weight)

    def forward(self, tokens: Tensor, adjacency: Tensor) -> Tensor:
        """Lets every token hear from those with an edge to it.

        Args:
            tokens: (R, T, D).
            adjacency: (R, T, T) or (1, T, T), from `ContextGraph.adjacency`.

        Returns:
            (R, T, D).
        """
        return adjacency @ F.linear(tokens, self.weight) + self.bias
