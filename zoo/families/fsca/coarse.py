"""The coarse nodes of a sequence: every segment, prompt and label as one vector."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import AssemblyError
from ...graphs.context_graph import Node, places


class CoarseNodes(nn.Module):
    """Tokens of a node, flattened, through a linear layer: one for segments, one for prompts; a label is its token.

    No gradient reaches the tokens, as in the official code, where both inputs are detached.

    A segment shorter than the longest is filled up with zero tokens. The official code instead puts all segments' tokens in a row, adds one
    zero token if their number is odd, and cuts the row into equal parts, so that with an odd number in two segments the first node also
    holds the first token of the second; `strict` does so.

    Args:
        nodes: The sequence.
        width: D.
        strict: Cut segments as the official code does.

    Raises:
        AssemblyError: If `strict` and the official code could not cut the segments.
    """

    def __init__(self, nodes: Sequence[Node], width: int, *, strict: bool = False) -> None:
        super().__init__()
        self.nodes, self.where, self.strict = list(nodes), places(nodes), strict
        self.segments = [place for place, node in zip(self.where, nodes, strict=True) if node.kind == "segment"]
        total = sum(len(place) for place in self.segments)
        self.longest = max(len(place) for place in self.segments)
        if strict:
            self.longest = -(-total // len(self.segments))
            if total + total % 2 != self.longest * len(self.segments):
                raise AssemblyError(
                    f"model.strict_reference: the official code cannot cut {total} patches into {len(self.segments)} segments; take "
                    "an even number of patches that the segments divide, two segments, or strict_reference: false"
                )
        prompt = next(node.tokens for node in nodes if node.kind == "prompt")
        self.segment = nn.Linear(self.longest * width, width)
        self.prompt = nn.Linear(prompt * width, width)

    def forward(self, sequence: Tensor, prompt: Tensor) -> Tensor:
        """Makes the nodes.

        Args:
            sequence: (R, T, D), before positions.
            prompt: (p, D), the same prompt wherever it stands, so that it is mapped once.

        Returns:
            (R, K, D).
        """
        sequence = sequence.detach()
        segments = iter(self.segment(self._cut(sequence)).unbind(1))
        asked = self.prompt(prompt.detach().flatten()).expand(len(sequence), -1)
        found = []
        for node, place in zip(self.nodes, self.where, strict=True):
            if node.kind == "segment":
                found.append(next(segments))
            else:
                found.append(asked if node.kind == "prompt" else sequence[:, place.start].to(asked.dtype))
        return torch.stack(found, 1)

    def _cut(self, sequence: Tensor) -> Tensor:
        """(R, number of segments, longest · D)."""
        parts = [sequence[:, place.start : place.stop] for place in self.segments]
        if self.strict:
            row = torch.cat(parts, 1)
            return F.pad(row, (0, 0, 0, row.shape[1] % 2)).unflatten(1, (len(parts), self.longest)).flatten(2)
        return torch.stack([F.pad(part, (0, 0, 0, self.longest - part.shape[1])).flatten(1) for part in parts], 1)
