"""What Honeybee's three projectors share: a table of positions, tokens for thinking, and how weights start.

Source: Honeybee (arXiv 2312.06742) and its official code.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import AssemblyError
from .base import check_sizes

STD = 0.02  # deviation with which everything learned starts in the official code


def required(tokens_in: int | None, projector: str) -> int:
    """The number of input tokens, which a table over them cannot do without.

    Args:
        tokens_in: V, if it is known.
        projector: Who needs it; used in the message.

    Raises:
        AssemblyError: If it is not known or below 1.
    """
    if tokens_in is None:
        raise AssemblyError(f"{projector} has a table over its input tokens and must know how many there are; give tokens_in")
    check_sizes(projector, tokens_in=tokens_in)
    return tokens_in


def check_built_for(built_for: int, tokens: int, projector: str) -> None:
    """Refuses another number of tokens than a projector was built for.

    Args:
        built_for: Its `tokens_in`.
        tokens: V of the features.
        projector: Its name; used in the message.

    Raises:
        AssemblyError: If they differ.
    """
    if tokens != built_for:
        raise AssemblyError(
            f"{projector} was built for {built_for} tokens and cannot serve {tokens}; keep the picture size, or build it with "
            f"tokens_in {tokens}"
        )


class PositionTable(nn.Module):
    """`x + p`, one learned vector per input token.

    Args:
        tokens: V.
        width: D.
        projector: Whose it is; used in messages.
    """

    def __init__(self, tokens: int, width: int, projector: str) -> None:
        super().__init__()
        self.projector = projector
        self.table = nn.Parameter(nn.init.trunc_normal_(torch.empty(tokens, width), std=STD))

    def check(self, tokens: int) -> None:
        """Refuses another number of tokens than the table has.

        Args:
            tokens: V of the features.

        Raises:
            AssemblyError: If it is another.
        """
        check_built_for(self.table.shape[0], tokens, self.projector)

    def forward(self, features: Tensor) -> Tensor:
        """(B, V, D) -> (B, V, D)."""
        self.check(features.shape[1])
        return features + self.table


class ThinkTokens(nn.Module):
    """Learned tokens behind the others, the same for every sample.

    Args:
        count: k; 0 adds none.
        width: D.
        projector: Whose they are; used in messages.

    Raises:
        AssemblyError: If the count is negative.
    """

    def __init__(self, count: int, width: int, projector: str) -> None:
        super().__init__()
        if count < 0:
            raise AssemblyError(f"{projector}: think_tokens is {count}; take 0 or more")
        self.count = count
        self.tokens = nn.Parameter(nn.init.trunc_normal_(torch.empty(count, width), std=STD)) if count else None

    def forward(self, features: Tensor) -> Tensor:
        """(B, V, D) -> (B, V + k, D)."""
        if self.tokens is None:
            return features
        return torch.cat([features, self.tokens.expand(features.shape[0], -1, -1)], dim=1)


def start_small(module: nn.Module) -> None:
    """Starts linear layers and convolutions from a normal of deviation 0.02 and their biases from 0, as the official code does.

    Args:
        module: What contains them; changed in place.
    """
    for part in module.modules():
        if isinstance(part, nn.MultiheadAttention):
            nn.init.normal_(part.in_proj_weight, std=STD)
        elif isinstance(part, nn.Linear | nn.Conv2d):
            nn.init.normal_(part.weight, std=STD)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
