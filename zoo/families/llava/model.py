"""LLaVA-1.5: one picture, padded to a square; features of the last layer but one; a projector of two layers.

Source: "Improved Baselines with Visual Instruction Tuning" (arXiv 2310.03744) and its official code.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ...stack.config import StackConfig
from ...stack.model import StackModel
from ...stack.pictures import PictureConfig


@dataclass
class LlavaConfig(StackConfig):
    """Settings of LLaVA-1.5: those of a stack, with the picture padded to a square."""

    picture: PictureConfig = field(default_factory=lambda: PictureConfig("pad"))


class LlavaModel(StackModel):
    """See `StackModel`."""

    family = "llava"
    Config = LlavaConfig
