"""LLaVA-OneVision: any grid of tiles up to 6 by 6, shrunk to nine tiles' worth of tokens; of several pictures the whole ones alone.

Source: "LLaVA-OneVision: Easy Visual Task Transfer" (arXiv 2408.03326) and its released code.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ...stack.anyres import ONEVISION_GRIDS
from ...stack.config import StackConfig
from ...stack.model import StackModel
from ...stack.pictures import PictureConfig


@dataclass
class LlavaOnevisionConfig(StackConfig):
    """Settings of LLaVA-OneVision: those of a stack, with `anyres_max_9`."""

    picture: PictureConfig = field(
        default_factory=lambda: PictureConfig("anyres", [list(grid) for grid in ONEVISION_GRIDS], 9, "whole")
    )


class LlavaOnevisionModel(StackModel):
    """See `StackModel`."""

    family = "llava_onevision"
    Config = LlavaOnevisionConfig
