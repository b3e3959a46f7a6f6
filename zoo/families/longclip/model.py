"""Long-CLIP (Zhang et al. 2024, arXiv 2403.15378): a CLIP whose text tower is stretched from 77 to 248 tokens.

The long caption of a sample is its `text`, the short one, its first sentence, its `second_text`; the loss `long_clip` takes both.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from ...encoders.image.base import ImageEncoder
from ...encoders.text.base import TextEncoder
from ...encoders.text.long_text import LongTextTower
from ...encoders.text.open_clip import OpenClipTextEncoder
from ...errors import AssemblyError, RecipeError
from ..assembly import build_text_side
from ..dual_encoder import DualEncoder, DualEncoderConfig


@dataclass
class LongClipConfig(DualEncoderConfig):
    """Settings of Long-CLIP: those of a dual encoder, or a CLIP to start from.

    Attributes:
        base: A CLIP whose encoders, projections and scale are taken: `open_clip:MODEL/TAG`, a folder in open_clip's layout, or a
            release of family clip. Then text encoder and projectors are not to be given.
        keep_positions: Rows of the table of positions that stay as they are.
        stretch: How much longer the rest becomes.
    """

    base: str | None = None
    keep_positions: int = 20
    stretch: int = 4


class LongClipModel(DualEncoder):
    """A dual encoder with a stretched text tower; at the start, texts of up to `keep_positions` tokens have the vectors they had."""

    family = "longclip"
    Config = LongClipConfig

    def _assemble(
        self, release: Path | None, preprocess: dict[str, Any] | None
    ) -> tuple[ImageEncoder, TextEncoder, nn.Module, nn.Module]:
        config: LongClipConfig = self.config
        if config.base is None or release is not None:
            return super()._assemble(release, preprocess)
        if config.text_embedder is not None or config.text_tower is not None:
            raise RecipeError("model: give base, or the parts of a longclip, not both")
        donor = _donor(config.base)
        self.config = _of(config, donor)
        return donor.image, _stretched(donor.text, config), donor.image_projector, donor.text_projector

    @classmethod
    def _build_text(cls, config: Any, release: Path | None) -> TextEncoder:
        return _stretched(build_text_side(config, release), config)

    @classmethod
    def part_from_source(cls, config: Any, prefix: str) -> nn.Module:
        """See `DualEncoder.part_from_source`."""
        if config.base is None:
            return super().part_from_source(config, prefix)
        donor = _donor(config.base)
        return donor.image if prefix == "image." else _stretched(donor.text, config)

    def sources(self) -> dict[str, str]:
        """See `DualEncoder.sources`."""
        if self.config.base is None:
            return super().sources()
        return {"image.": self.config.base, "text.": self.config.base}


def _stretched(text: TextEncoder, config: LongClipConfig) -> LongTextTower:
    if not isinstance(text, OpenClipTextEncoder):
        raise AssemblyError(
            "model: longclip stretches CLIP's text tower; give text_tower, or text_embedder with an open_clip name"
        )
    return LongTextTower(text, config.keep_positions, config.stretch)


def _donor(base: str) -> Any:
    from ...checkpoints.release import load

    donor = load(base)
    if not isinstance(donor, DualEncoder):
        raise AssemblyError(f"model.base: {base} is of family {donor.family!r}, which is no dual encoder")
    return donor


def _of(config: LongClipConfig, donor: Any) -> LongClipConfig:
    """The settings of a model made of a donor's parts, from which a release builds the same shape without it."""
    given, bias = donor.config, donor.logit_bias
    return replace(
        config,
        image=given.image,
        text_embedder=given.text_embedder,
        text_tower=given.text_tower,
        image_projector=given.image_projector,
        text_projector=given.text_projector,
        embed_dim=given.embed_dim,
        logit_scale_init=float(donor.logit_scale.detach()),
        logit_bias_init=None if bias is None else float(bias.detach()),
    )
