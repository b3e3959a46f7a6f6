"""LLaVA-1.6 (LLaVA-NeXT): the whole picture, then tiles of it at its own resolution, each row ended by a learned token.

Source: the released code and configurations of LLaVA-1.6, as transformers carries them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ...stack.config import StackConfig
from ...stack.model import StackModel
from ...stack.pictures import PictureConfig


@dataclass
class LlavaNextConfig(StackConfig):
    """Settings of LLaVA-1.6: those of a stack, with pictures in five grids of tiles."""

    picture: PictureConfig = field(default_factory=lambda: PictureConfig("anyres"))


class LlavaNextModel(StackModel):
    """See `StackModel`."""

    family = "llava_next"
    Config = LlavaNextConfig
