"""Deformable attention: every query looks at a few places that it chooses itself, between the cells of a grid.

Source: Deformable DETR (arXiv 2010.04159), equation 2; one level, weights and starting values as in its official code.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DeformableAttention(nn.Module):
    """`W_o concat_h Σ_p A_hqp · V_h(r_q + Δ_hqp / n)`, V read bilinearly, 0 outside the grid.

    A is a softmax over the points of a head, and A and Δ are affine maps of the query alone: there are no keys. Places are computed in
    float32 or better, because in a 16-bit type they would move by parts of a cell.

    Args:
        width: D.
        heads: h.
        points: P, places per head and query.
    """

    def __init__(self, width: int, heads: int, points: int) -> None:
        super().__init__()
        self.heads, self.points = heads, points
        self.offsets = nn.Linear(width, heads * points * 2)
        self.weights = nn.Linear(width, heads * points)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.reset()

    def reset(self) -> None:
        """Starts as Deformable DETR: head i looks into direction 2πi/h, its point p as many cells away as p says; equal weights."""
        angles = torch.arange(self.heads) * (2 * math.pi / self.heads)
        directions = torch.stack([angles.cos(), angles.sin()], -1)
        directions = directions / directions.abs().amax(-1, keepdim=True)
        rings = directions[:, None] * torch.arange(1, self.points + 1)[:, None]
        with torch.no_grad():
            self.offsets.bias.copy_(rings.flatten())
        for zero in (self.offsets.weight, self.weights.weight, self.weights.bias, self.value.bias, self.out.bias):
            nn.init.zeros_(zero)
        nn.init.xavier_uniform_(self.value.weight)
        nn.init.xavier_uniform_(self.out.weight)

    def forward(self, queries: Tensor, memory: Tensor, references: Tensor, side: int) -> Tensor:
        """Reads the grid.

        Args:
            queries: (B, Q, D), with their positions.
            memory: (B, n², D), row by row.
            references: (Q, 2), x and y of every query; (0, 0) is the grid's upper left corner, (1, 1) its lower right one.
            side: n.

        Returns:
            (B, Q, D).
        """
        batch = queries.shape[0]
        places = self._places(queries, references, side)
        values = self.value(memory).unflatten(2, (self.heads, -1)).permute(0, 2, 3, 1).flatten(0, 1).unflatten(2, (side, side))
        read = F.grid_sample(values.to(places.dtype), 2 * places - 1, align_corners=False)  # (B h, D / h, Q, P)
        weights = self.weights(queries).unflatten(2, (self.heads, self.points)).softmax(-1).transpose(1, 2).flatten(0, 1)
        mixed = (read * weights[:, None]).sum(-1).unflatten(0, (batch, self.heads)).flatten(1, 2)
        return self.out(mixed.transpose(1, 2).to(values.dtype))

    def _places(self, queries: Tensor, references: Tensor, side: int) -> Tensor:
        """(B h, Q, P, 2), in units of the grid."""
        exact = torch.promote_types(references.dtype, torch.float32)
        offsets = self.offsets(queries).to(exact).unflatten(2, (self.heads, self.points, 2)) / side
        return (references.to(exact)[:, None, None] + offsets).transpose(1, 2).flatten(0, 1)
