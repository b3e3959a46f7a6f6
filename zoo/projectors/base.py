"""The projector contract, shared by every projector of the zoo."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from ..errors import AssemblyError


class Projector(nn.Module):
    """Maps features (B, V, D_in) to (B, V', D_out).

    A projector that works on each token alone takes any leading shape, and needs to write `forward` only. One that changes the number of
    tokens says so in `num_tokens`, and in `out_grid` what becomes of rows and columns. One with a table of positions over its input
    takes `tokens_in: int | None = None` in its constructor; who knows the number passes it.

    Attributes:
        name: What messages call it; its name in the registry.
        width_in: D_in.
        width_out: D_out.
    """

    name: ClassVar[str] = "this projector"

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.width_in = width_in
        self.width_out = width_out

    def num_tokens(self, tokens: int) -> int:
        """V' for V tokens; the same for projectors that work on each token alone.

        Args:
            tokens: V.

        Raises:
            AssemblyError: If it cannot serve that many; the message says why.
        """
        return tokens

    def out_grid(self, grid: tuple[int, int]) -> tuple[int, int] | None:
        """Rows and columns behind the projector, of features that lie on a grid row by row; None where no grid is left.

        Args:
            grid: Rows and columns before it.

        Raises:
            AssemblyError: If it cannot serve that grid; the message says why.
        """
        return grid

    def forward(self, features: Tensor) -> Tensor:
        """(B, V, D_in) -> (B, V', D_out)."""
        raise NotImplementedError


def check_axes(projector: str, features: Tensor) -> None:
    """Refuses features that are not (B, V, D).

    Args:
        projector: Its name.
        features: What it was given.

    Raises:
        AssemblyError: If there are more or fewer than three axes.
    """
    if features.ndim != 3:
        raise AssemblyError(f"{projector} takes features of shape (B, V, D), not {tuple(features.shape)}; flatten or add an axis")


def check_sizes(projector: str, **sizes: int) -> None:
    """Refuses options that count something and are below 1.

    Args:
        projector: Its name.
        sizes: Option -> value.

    Raises:
        AssemblyError: At the first that is.
    """
    for option, size in sizes.items():
        if size < 1:
            raise AssemblyError(f"{projector}: {option} is {size}; take 1 or more")


def check_heads(projector: str, width: int, heads: int) -> None:
    """Refuses heads that do not divide a width.

    Args:
        projector: Its name.
        width: The width of the attention.
        heads: h.

    Raises:
        AssemblyError: If they do not.
    """
    check_sizes(projector, heads=heads)
    if width % heads:
        raise AssemblyError(f"{projector}: {heads} heads do not divide the width {width}; take a divisor of it")
