"""Heads that read every number of some positions with one linear layer."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import AssemblyError


class FlattenHead(nn.Module):
    """`y = W flatten(h) + b` over the first `coordinates` coordinates of all positions, coordinate by coordinate, then dropout.

    The order (coordinate, position) and the dropout behind the linear layer are those of the official code of FSCA and of PatchTST's head.

    Args:
        width: D of the hidden states.
        coordinates: How many coordinates of each position are read.
        positions: How many positions there are.
        outputs: How many numbers come out.
        dropout: Of the outputs.

    Raises:
        AssemblyError: If more coordinates are asked for than there are.
    """

    def __init__(self, width: int, coordinates: int, positions: int, outputs: int, dropout: float = 0.0) -> None:
        super().__init__()
        if not 1 <= coordinates <= width:
            raise AssemblyError(
                f"flatten head: {coordinates} coordinates are to be read of states of width {width}; take at most {width}"
            )
        self.coordinates = coordinates
        self.linear = nn.Linear(coordinates * positions, outputs)
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: Tensor) -> Tensor:
        """Reads the states.

        Args:
            states: (R, positions, D).

        Returns:
            (R, outputs).
        """
        return self.dropout(self.linear(states[..., : self.coordinates].transpose(1, 2).flatten(1)))


class FlattenClassHead(nn.Module):
    """`W norm(flatten(gelu(h))) + b` over the first `coordinates` coordinates of all positions, position by position: logits of classes.

    As the official classification code of FSCA has it.

    Args:
        width: D of the hidden states.
        coordinates: How many coordinates of each position are read.
        positions: How many positions there are.
        classes: How many classes there are.

    Raises:
        AssemblyError: If more coordinates are asked for than there are.
    """

    def __init__(self, width: int, coordinates: int, positions: int, classes: int) -> None:
        super().__init__()
        _check(coordinates, width)
        self.coordinates = coordinates
        self.norm = nn.LayerNorm(coordinates * positions)
        self.linear = nn.Linear(coordinates * positions, classes)

    def forward(self, states: Tensor) -> Tensor:
        """Reads the states.

        Args:
            states: (R, positions, D).

        Returns:
            (R, classes).
        """
        return self.linear(self.norm(F.gelu(states[..., : self.coordinates]).flatten(1)))


def _check(coordinates: int, width: int) -> None:
    if not 1 <= coordinates <= width:
        raise AssemblyError(
            f"flatten head: {coordinates} coordinates are to be read of states of width {width}; take at most {width}"
        )
