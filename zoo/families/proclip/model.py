"""ProCLIP (arXiv 2510.18795): CLIP's image encoder, a frozen language-model embedder and a residual projector between them.

Stage 1, representation inheritance: the projector learns to put an embedder's vector where CLIP's own text tower puts the caption.
Stage 2, contrastive tuning: image encoder, projector and scale train on pairs, held back by a copy of the image encoder.
The stages are recipes (`configs/proclip`); here is only what the model is made of.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import RecipeError
from ..dual_encoder import DualEncoder, DualEncoderConfig, ProjectorConfig


@dataclass
class ProClipConfig(DualEncoderConfig):
    """Settings of ProCLIP: those of a dual encoder, with its projector as the default.

    Attributes:
        text_projector: `proclip` (one block, expansion 8) or `llm2clip` (four blocks, expansion 2).
    """

    text_projector: ProjectorConfig | None = field(default_factory=lambda: ProjectorConfig("proclip"))


class ProClipModel(DualEncoder):
    """A dual encoder whose text side is an embedder that stays as it is.

    `embed_dim` must be the output width of the text tower that stage 1 inherits from.
    """

    family = "proclip"
    Config = ProClipConfig

    def __init__(self, config: ProClipConfig, *, release: Path | None = None, preprocess: dict[str, Any] | None = None) -> None:
        """See `DualEncoder`.

        Raises:
            RecipeError: If there is no embedder or no projector.
        """
        if config.text_embedder is None:
            raise RecipeError(
                "model: proclip needs text_embedder: its text side is a pretrained embedder, not a tower from scratch"
            )
        if config.text_projector is None:
            raise RecipeError("model: proclip needs text_projector, usually {name: proclip}")
        super().__init__(config, release=release, preprocess=preprocess)
