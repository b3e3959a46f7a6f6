"""How a dual encoder is put together: its settings, and the parts built from them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from ..configure import fill
from ..encoders.image.base import ImageEncoder
from ..encoders.image.build import ImageEncoderConfig
from ..encoders.text.base import TextEncoder
from ..encoders.text.clip_text import ClipTextConfig, ClipTextTower
from ..encoders.text.embedder import TextEmbedderConfig, build_text_encoder
from ..errors import AssemblyError, RecipeError
from ..projectors.base import Projector
from ..registry import PROJECTORS

MAX_DIM = 2**16  # D of the joint space; the widest published ones have a few thousand


@dataclass
class ProjectorConfig:
    """Which projector, and its settings.

    Attributes:
        name: A projector of `modalign zoo list`.
        options: Settings of its constructor, without the widths.
    """

    name: str = "linear"
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class DualEncoderConfig:
    """Settings of a dual encoder; give exactly one of `text_embedder` and `text_tower`.

    Attributes:
        image: The image encoder.
        text_embedder: A pretrained text encoder: an embedder, a language model, or a text tower of open_clip.
        text_tower: A CLIP text tower from scratch.
        image_projector: From image features to the joint space; null takes the checkpoint's own projection (open_clip), or none.
        text_projector: From text features to the joint space; null takes the tower's own projection, or none.
        embed_dim: D of the joint space.
        logit_scale_init: Natural log of the initial scale; CLIP's ln(1/0.07).
        logit_bias_init: Initial value of a trained bias of the logits, which the sigmoid loss needs; None has none.
    """

    image: ImageEncoderConfig = field(default_factory=ImageEncoderConfig)
    text_embedder: TextEmbedderConfig | None = None
    text_tower: ClipTextConfig | None = None
    image_projector: ProjectorConfig | None = field(default_factory=ProjectorConfig)
    text_projector: ProjectorConfig | None = field(default_factory=ProjectorConfig)
    embed_dim: int = 512
    logit_scale_init: float = math.log(1 / 0.07)
    logit_bias_init: float | None = None

    def __post_init__(self) -> None:
        """Refuses a joint space that no memory holds.

        Raises:
            RecipeError: If `embed_dim` is out of range.
        """
        if not 1 <= self.embed_dim <= MAX_DIM:
            raise RecipeError(f"model.embed_dim: {self.embed_dim} must be a whole number from 1 to {MAX_DIM}")


def build_text_side(config: DualEncoderConfig, release: Path | None) -> TextEncoder:
    """The text encoder that settings ask for.

    Args:
        config: The settings.
        release: Folder of a release that supplies weights and processors; then no source is loaded.

    Raises:
        RecipeError: If not exactly one is given.
    """
    if (config.text_embedder is None) == (config.text_tower is None):
        raise RecipeError("model: give exactly one of text_embedder (pretrained) and text_tower (from scratch)")
    folder = None if release is None else release / "text"
    if config.text_embedder is not None:
        return build_text_encoder(config.text_embedder, load_weights=release is None, folder=folder)
    assert config.text_tower is not None
    return ClipTextTower(config.text_tower)


def build_projector(config: ProjectorConfig | None, encoder: ImageEncoder | TextEncoder, embed_dim: int, where: str) -> nn.Module:
    """What stands between an encoder and the joint space: a projector of the zoo, or what the encoder has of its own.

    Args:
        config: Which projector; None takes the encoder's own projection off it, if it has one.
        encoder: The encoder.
        embed_dim: D of the joint space.
        where: The setting's name, for messages.

    Raises:
        AssemblyError: If widths do not fit.
    """
    if config is not None:
        cls: type[Projector] = PROJECTORS.get(config.name)
        return fill(cls, config.options, f"model.{where}.options", width_in=encoder.width, width_out=embed_dim)
    if encoder.width != embed_dim:
        raise AssemblyError(f"model.{where} is off, but its encoder is {encoder.width} wide and the joint space {embed_dim}")
    return encoder.split_projection() or nn.Identity()
