"""What resamplers share: as many tokens come out as there are queries, whatever goes in."""

from __future__ import annotations

from torch import Tensor

from ..errors import AssemblyError
from .base import Projector, check_axes


class Resampler(Projector):
    """A projector from V tokens to a fixed number of them, in which no grid survives.

    Attributes:
        tokens_out: V'.
    """

    def __init__(self, width_in: int, width_out: int, tokens_out: int) -> None:
        super().__init__(width_in, width_out)
        self.tokens_out = tokens_out

    def num_tokens(self, tokens: int) -> int:
        """V', for any V from 1 on."""
        if tokens < 1:
            raise AssemblyError(f"{self.name} cannot look at {tokens} tokens; give it one or more")
        return self.tokens_out

    def check_features(self, features: Tensor) -> None:
        """Refuses features of another shape than (B, V, D), or of a V that it cannot serve."""
        check_axes(self.name, features)
        self.num_tokens(features.shape[1])

    def out_grid(self, grid: tuple[int, int]) -> tuple[int, int] | None:
        """None: a query belongs to no place."""
        self.num_tokens(grid[0] * grid[1])
        return None
