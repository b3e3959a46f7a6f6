"""LiT (Zhai et al. 2022, arXiv 2111.07991), locked-image tuning: CLIP's loss, with a pretrained image encoder that never trains."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ...errors import RecipeError
from ..dual_encoder import DualEncoder, DualEncoderConfig


@dataclass
class LitConfig(DualEncoderConfig):
    """Settings of LiT: those of a dual encoder with a pretrained image encoder."""


class LitModel(DualEncoder):
    """A dual encoder whose image encoder is locked: it has the role `encoder` like any other, and cannot be trained.

    Because it never changes, its features can be cached at every stage (`cache: {image: output}`).
    """

    family = "lit"
    Config = LitConfig

    def __init__(self, config: LitConfig, *, release: Path | None = None, preprocess: dict[str, Any] | None = None) -> None:
        """See `DualEncoder`.

        Raises:
            RecipeError: If the image encoder would start from random weights.
        """
        if not config.image.pretrained:
            raise RecipeError(
                "model: lit locks its image encoder, so image.pretrained must not be off; family clip trains from scratch"
            )
        super().__init__(config, release=release, preprocess=preprocess)
        self.image.requires_grad_(False)

    def locked(self, parameter: str) -> str | None:
        """Why a parameter (named as in `named_parameters`) cannot be trained; None if it can."""
        if not parameter.startswith("image."):
            return None
        return (
            "family lit keeps its image encoder locked, so the role 'encoder' cannot be trained; train head, projector, embedder or aux, "
            "or take family clip"
        )

    def get_parameter(self, target: str) -> nn.Parameter:
        """A parameter by name, for training.

        Raises:
            RecipeError: If it is locked.
        """
        if reason := self.locked(target):
            raise RecipeError(reason)
        return super().get_parameter(target)
