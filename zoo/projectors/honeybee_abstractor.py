"""What Honeybee's two abstractors share: q x q tokens come out, and learned ones may follow them."""

from __future__ import annotations

from torch import Tensor

from ..errors import AssemblyError
from .base import Projector, check_axes
from .grid import side_of, square_side
from .honeybee_parts import ThinkTokens


class Abstractor(Projector):
    """A projector from a square grid to q x q tokens and k learned ones behind them.

    Args:
        width_in: D_in.
        width_out: D_out.
        queries: q².
        think_tokens: k.
        think_width: Width of the learned tokens where they are added.

    Attributes:
        side: q.

    Raises:
        AssemblyError: If `queries` is no square number.
    """

    def __init__(self, width_in: int, width_out: int, queries: int, think_tokens: int, think_width: int) -> None:
        super().__init__(width_in, width_out)
        self.side = _side(queries, self.name)
        self.think = ThinkTokens(think_tokens, think_width, self.name)

    def check_tokens(self, tokens: int) -> None:
        """Refuses a number of tokens that it cannot serve.

        Args:
            tokens: V.

        Raises:
            AssemblyError: If it cannot; the message says why.
        """
        side_of(tokens, self.name)

    def check_features(self, features: Tensor) -> None:
        """Refuses features of another shape than (B, V, D), or of a V that it cannot serve."""
        check_axes(self.name, features)
        self.check_tokens(features.shape[1])

    def num_tokens(self, tokens: int) -> int:
        """V' = q² + k."""
        self.check_tokens(tokens)
        return self.side**2 + self.think.count

    def out_grid(self, grid: tuple[int, int]) -> tuple[int, int] | None:
        """The q x q grid; None if learned tokens follow it. A grid that is not square is refused."""
        self.check_tokens(square_side(grid, self.name) ** 2)
        return None if self.think.count else (self.side, self.side)


def _side(queries: int, name: str) -> int:
    """The side q of q² queries."""
    side = round(max(queries, 0) ** 0.5)
    if side < 1 or side * side != queries:
        raise AssemblyError(f"{name}: queries is {queries}, which is no square number; take one such as {max(side, 1) ** 2}")
    return side
