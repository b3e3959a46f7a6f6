"""Context graphs: which tokens of an interleaved sequence tell which others what they mean, and how strongly.

A sequence is a row of nodes: segments of a series, prompts, and labels of examples, each of one or more tokens. The fine graph joins
tokens, the coarse graph joins nodes: it is the fine graph of the same nodes with one token each. Edges are directed; the weights of a
group sum to 1. Context-Alignment (Hu et al. 2025); groups and weights as in its official code.

A graph depends on the lengths of nodes alone, never on a batch, so it is built once and serves batches of any size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import AssemblyError

NodeKind = Literal["segment", "prompt", "label"]


@dataclass(frozen=True)
class Node:
    """A stretch of tokens that is one node of the coarse graph.

    Attributes:
        kind: What it is.
        tokens: How many tokens it has.
    """

    kind: NodeKind
    tokens: int


@dataclass
class Edges:
    """Edges of a graph, as they are found.

    Attributes:
        source: Token each comes from.
        target: Token each goes to.
        group: Which of them are normalised together.
    """

    source: list[int] = field(default_factory=list)
    target: list[int] = field(default_factory=list)
    group: list[int] = field(default_factory=list)
    groups: int = 0

    def add(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """A new group: from every source to every target."""
        pairs = [(source, target) for source in sources for target in targets]
        self.source += [source for source, _ in pairs]
        self.target += [target for _, target in pairs]
        self.group += [self.groups] * len(pairs)
        self.groups += 1


def segment_lengths(tokens: int, segments: int) -> list[int]:
    """Lengths of `segments` contiguous parts: each `floor(tokens / segments)`, the last takes the rest.

    Raises:
        AssemblyError: If there are fewer tokens than segments.
    """
    if not 1 <= segments <= tokens:
        raise AssemblyError(
            f"model.segments: {tokens} patches cannot be split into {segments} segments; take at most {tokens} segments, smaller patches "
            "(model.patch_size), a smaller model.stride or a longer look-back"
        )
    each = tokens // segments
    return [each] * (segments - 1) + [tokens - each * (segments - 1)]


def forecast_nodes(tokens: int, segments: int, prompt: int) -> list[Node]:
    """Segment 1, prompt, segment 2, prompt, ...: earlier segments are examples of what follows, the last prompt asks for the future.

    Args:
        tokens: Patches of the series.
        segments: Into how many segments they are split; one is the vanilla form, series and prompt.
        prompt: Tokens of the prompt.
    """
    lengths = segment_lengths(tokens, segments)
    return [node for length in lengths for node in (Node("segment", length), Node("prompt", prompt))]


def example_nodes(tokens: int, examples: int, prompt: int) -> list[Node]:
    """For every labelled example its series, prompt and label; then the series in question and its prompt.

    Args:
        tokens: Patches of a series.
        examples: How many labelled examples; none is the vanilla form, series and prompt.
        prompt: Tokens of the prompt.
    """
    asked = [Node("segment", tokens), Node("prompt", prompt)]
    return [*[*asked, Node("label", 1)] * examples, *asked]


def places(nodes: Sequence[Node]) -> list[range]:
    """Positions of each node's tokens."""
    found, start = [], 0
    for node in nodes:
        found.append(range(start, start + node.tokens))
        start += node.tokens
    return found


def context_edges(nodes: Sequence[Node]) -> Edges:
    """The directed edges between tokens.

    - Forecasting (no labels): all tokens of all earlier segments -> the first token of each prompt; the last token of each prompt but the
      last -> every token of the segment behind it.
    - With labels: all tokens of a segment -> the first token of its prompt; the last token of the prompt -> the label. Examples are not
      joined with one another.

    Args:
        nodes: The sequence.

    Returns:
        Edges in the order of groups; a group for each arrow above.
    """
    where, edges = places(nodes), Edges()
    labelled = any(node.kind == "label" for node in nodes)
    earlier: list[int] = []
    for number, node in enumerate(nodes):
        if node.kind == "segment":
            earlier = [*where[number]] if labelled else [*earlier, *where[number]]
            continue
        if node.kind == "label":
            continue
        edges.add(earlier, where[number][:1])
        if number + 1 < len(nodes):
            edges.add(where[number][-1:], where[number + 1])
    return edges


class ContextGraph(nn.Module):
    """A fixed set of edges over a fixed number of tokens, with weights that follow the tokens.

    Args:
        nodes: The sequence.
        coarse: Join nodes instead of tokens.
    """

    source: Tensor
    target: Tensor
    group: Tensor
    members: Tensor

    def __init__(self, nodes: Sequence[Node], *, coarse: bool = False) -> None:
        super().__init__()
        nodes = [Node(node.kind, 1) for node in nodes] if coarse else list(nodes)
        edges = context_edges(nodes)
        self.tokens = sum(node.tokens for node in nodes)
        group = torch.tensor(edges.group)
        self.register_buffer("source", torch.tensor(edges.source), persistent=False)
        self.register_buffer("target", torch.tensor(edges.target), persistent=False)
        self.register_buffer("group", group, persistent=False)
        self.register_buffer("members", F.one_hot(group, edges.groups).float(), persistent=False)

    def weights(self, tokens: Tensor) -> Tensor:
        """Weight of each edge: `cos(source, target) + 1`, divided by the sum over its group.

        Args:
            tokens: (R, T, D).

        Returns:
            (R, E), in [0, 1]; the edges of a group sum to 1.
        """
        unit = F.normalize(tokens, dim=-1, eps=1e-8)
        # all pairs cost less than gathering both ends of each edge, which would copy the tokens once per edge
        raw = (unit @ unit.transpose(1, 2))[:, self.source, self.target].clamp(min=-1) + 1
        total = (raw @ self.members.to(raw.dtype)).clamp(min=1e-8)
        return raw / total[:, self.group]

    def adjacency(self, weights: Tensor | None = None) -> Tensor:
        """The matrix of a graph convolution: self loops of weight 1, each edge divided by the roots of both ends' in-degrees.

        `M_ij = w_ji / sqrt(deg_i deg_j)`, `deg_i = 1 + Σ_j w_ji` (Kipf and Welling 2017, for directed edges as torch_geometric has it).

        Args:
            weights: (R, E); None gives every edge 1.

        Returns:
            (R, T, T), or (1, T, T) without weights.
        """
        if weights is None:
            weights = self.members.new_ones(1, len(self.source))
        flat = weights.new_zeros(len(weights), self.tokens * self.tokens)
        matrix = flat.index_add(1, self.target * self.tokens + self.source, weights).unflatten(1, (self.tokens, self.tokens))
        matrix = matrix + torch.eye(self.tokens, dtype=weights.dtype, device=weights.device)
        root = matrix.sum(2).rsqrt()
        return root[:, :, None] * matrix * root[:, None, :]


def assignment(nodes: Sequence[Node], *, normalised: bool = True) -> Tensor:
    """Which token belongs to which node.

    Args:
        nodes: The sequence.
        normalised: Divide each column by the tokens of its node, so that columns sum to 1; the official short-term code does not.

    Returns:
        (T, K), one number in each row.
    """
    matrix = torch.zeros(sum(node.tokens for node in nodes), len(nodes))
    for number, place in enumerate(places(nodes)):
        matrix[place.start : place.stop, number] = 1 / len(place) if normalised else 1
    return matrix
