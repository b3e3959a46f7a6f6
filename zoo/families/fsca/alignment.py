"""Dual-scale context alignment: a sequence runs through the language model while graph convolutions act between its blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...graphs.context_graph import ContextGraph, Node, assignment
from ...graphs.directed_gcn import DirectedGcn
from ...language.backbone import Backbone
from .coarse import CoarseNodes

Change = Callable[[Tensor], Tensor]


class DualScaleAlignment(nn.Module):
    """Fine and coarse graphs around the blocks of a language model (DSCA-GNN; Hu et al. 2025).

    At each fine point `h <- GCN_fine(h)`; where it is a coarse point too, `h <- h + w Linear(A l)`, with l the coarse states after
    `l <- GCN_coarse(l)`, cut to their first coordinates, and A the assignment of tokens to nodes. Each graph has one convolution for all
    points. The coarse states pass through the same blocks; they do not depend on the fine ones and so are run first.

    Args:
        nodes: The sequence.
        width: D.
        coarse_width: Coordinates of a coarse state that are used.
        coarse_weight: w; None learns it from 0.5.
        fine_points: Places of the fine convolution.
        coarse_points: Places, among them, of the coarse one.
        strict: Nodes as the official code cuts them.
        normalised: Columns of A sum to 1.
    """

    def __init__(
        self,
        nodes: Sequence[Node],
        width: int,
        coarse_width: int,
        coarse_weight: float | None,
        fine_points: Sequence[int],
        coarse_points: Sequence[int],
        *,
        strict: bool = False,
        normalised: bool = True,
    ) -> None:
        super().__init__()
        self.fine_points, self.coarse_points = list(fine_points), list(coarse_points)
        self.coarse_width = coarse_width
        self.fine_graph = ContextGraph(nodes)
        self.fine = DirectedGcn(width) if fine_points else None
        self.coarse_nodes: CoarseNodes | None = None
        if coarse_points and coarse_weight != 0:
            self.coarse_nodes = CoarseNodes(nodes, width, strict=strict)
            self.coarse_graph = ContextGraph(nodes, coarse=True)
            self.coarse = DirectedGcn(width)
            self.to_fine = nn.Linear(coarse_width, width)
            self.weight = nn.Parameter(torch.tensor(0.5)) if coarse_weight is None else coarse_weight
            self.register_buffer("assignment", assignment(nodes, normalised=normalised), persistent=False)

    def forward(self, sequence: Tensor, prompt: Tensor, backbone: Backbone) -> Tensor:
        """Runs both scales.

        Args:
            sequence: (R, T, D), without positions.
            prompt: (p, D), as it stands in the sequence.
            backbone: The language model.

        Returns:
            (R, T, D), the last state, after the final norm.
        """
        added = self._coarse_states(sequence, prompt, backbone)
        if self.fine is None:
            return backbone(sequence)[-1]
        matrix = self.fine_graph.adjacency(self.fine_graph.weights(sequence))
        fine = self.fine

        def change(point: int) -> Change:
            def aligned(states: Tensor) -> Tensor:
                states = fine(states, matrix.to(states.dtype))
                return states + added[point] if point in added else states

            return aligned

        return backbone(sequence, between={point: change(point) for point in self.fine_points})[-1]

    def _coarse_states(self, sequence: Tensor, prompt: Tensor, backbone: Backbone) -> dict[int, Tensor]:
        """Coarse point -> what is added to the fine states there (R, T, D)."""
        if self.coarse_nodes is None:
            return {}
        matrix, found = self.coarse_graph.adjacency(), {}

        def change(point: int) -> Change:
            def noted(states: Tensor) -> Tensor:
                states = self.coarse(states, matrix.to(states.dtype))
                found[point] = self._to_fine(states)
                return states

            return noted

        backbone(self.coarse_nodes(sequence, prompt), between={point: change(point) for point in self.coarse_points})
        return found

    def _to_fine(self, states: Tensor) -> Tensor:
        """`w (A l W^T + b)`: the linear map before A, for there are fewer nodes than tokens."""
        mapped = F.linear(states[..., : self.coarse_width], self.to_fine.weight)
        assigned: Tensor = self.get_buffer("assignment").to(mapped.dtype) @ mapped
        return self.weight * (assigned + self.to_fine.bias)
