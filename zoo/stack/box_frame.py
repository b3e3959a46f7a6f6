"""Boxes as a model writes them: four numbers from 0 to 1, relative to what the encoder is shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..language.turns import Box
from ..metrics.box_text import pad_box, unpad_box
from ..metrics.grounding_baselines import relative_box, scaled_box
from .anyres import Size


@dataclass(frozen=True)
class BoxFrame:
    """From pixels of a stored picture to the numbers of a text, and back.

    Source: LLaVA and VPP-LLaVA write `[x1, y1, x2, y2]` relative to the square that the picture was padded to.

    Attributes:
        padded: Relative to that square; else to the picture itself.
        decimals: Digits of a coordinate.
    """

    padded: bool
    decimals: int = 3

    def __call__(self, box: Box, size: Size) -> str:
        """The text of a box.

        Args:
            box: (x0, y0, x1, y1) in pixels.
            size: (width, height) of the picture.
        """
        relative = pad_box(box, *size) if self.padded else relative_box(box, size)
        return f"[{', '.join(f'{value:.{self.decimals}f}' for value in relative)}]"

    def pixels(self, relative: Sequence[float], size: Size) -> list[float]:
        """Relative coordinates -> pixels of the stored picture; what lies left of it or above it is moved onto its edge, as published."""
        return unpad_box(relative, *size) if self.padded else scaled_box(relative, size)
