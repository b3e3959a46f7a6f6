"""Linear heads: from the state of a token to its channel's future, or from all states to a class."""

from __future__ import annotations

from torch import Tensor, nn


class LinearHead(nn.Module):
    """`y_c = W h_c + b`, one map for all channels.

    Args:
        width: D.
        horizon: H.
    """

    def __init__(self, width: int, horizon: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, horizon)

    def forward(self, states: Tensor) -> Tensor:
        """(B, C, D) -> (B, H, C)."""
        return self.linear(states).transpose(1, 2)


class ClassHead(nn.Module):
    """Logits of all tokens' states laid side by side.

    Args:
        width: D.
        channels: C.
        classes: How many.
    """

    def __init__(self, width: int, channels: int, classes: int) -> None:
        super().__init__()
        self.channels, self.classes = channels, classes
        self.linear = nn.Linear(width * channels, classes)

    def forward(self, states: Tensor) -> Tensor:
        """(B, C, D) -> (B, classes)."""
        return self.linear(states.flatten(1))
