"""What projectors on square grids share: from tokens to a map and back, and what they refuse."""

from __future__ import annotations

import math

from torch import Tensor

from ..errors import AssemblyError
from .base import Projector, check_axes


def side_of(tokens: int, projector: str) -> int:
    """The side n of a square grid of V tokens.

    Args:
        tokens: V.
        projector: Who needs the grid; used in the message.

    Returns:
        The whole square root of V.

    Raises:
        AssemblyError: If V is no square number.
    """
    side = math.isqrt(max(tokens, 0))
    if side < 1 or side * side != tokens:
        raise AssemblyError(
            f"{projector} works on a square grid, and {tokens} tokens are none; take the patch tokens alone (without a class token) "
            "of a square picture, or a projector that needs no grid, such as mlp or perceiver"
        )
    return side


def square_side(grid: tuple[int, int], projector: str) -> int:
    """The side n of a grid of n rows and n columns.

    Args:
        grid: Rows and columns.
        projector: Who needs it square; used in the message.

    Raises:
        AssemblyError: If it is not square.
    """
    rows, columns = grid
    if rows != columns:
        raise AssemblyError(
            f"{projector} works on a square grid, not on {rows} rows and {columns} columns; take a square picture, or a projector that "
            "needs no grid, such as mlp or perceiver"
        )
    return rows


def to_map(features: Tensor, projector: str) -> Tensor:
    """Lays tokens out on their square grid.

    Args:
        features: (B, V, D), V = n², row by row.
        projector: Who asks; used in messages.

    Returns:
        (B, D, n, n).

    Raises:
        AssemblyError: If there are more or fewer than three axes, or V is no square number.
    """
    check_axes(projector, features)
    side = side_of(features.shape[1], projector)
    return features.transpose(1, 2).unflatten(2, (side, side))


def to_tokens(maps: Tensor) -> Tensor:
    """(B, D, n, m) -> (B, n m, D), row by row."""
    return maps.flatten(2).transpose(1, 2)


class GridProjector(Projector):
    """A projector from one square grid to another: n x n tokens become `out_side(n)` x `out_side(n)`."""

    def out_side(self, side: int) -> int:
        """Rows (and columns) behind the projector.

        Args:
            side: n, rows before it.

        Raises:
            AssemblyError: If it cannot serve that side.
        """
        raise NotImplementedError

    def num_tokens(self, tokens: int) -> int:
        """V' = out_side(√V)²."""
        return self.out_side(side_of(tokens, self.name)) ** 2

    def out_grid(self, grid: tuple[int, int]) -> tuple[int, int] | None:
        """The square grid behind the projector; a grid that is not square is refused."""
        side = self.out_side(square_side(grid, self.name))
        return side, side
