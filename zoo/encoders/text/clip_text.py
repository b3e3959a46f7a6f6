"""CLIP's text tower from scratch: a causal transformer over byte-pair tokens, read off at the end-of-text token.

Built from open_clip's own modules and tokenizer, so that its checkpoints fit.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .open_clip import OpenClipTextEncoder, build_text
from .open_clip_tokenize import ClipTokenize

__all__ = ["VOCABULARY", "ClipTextConfig", "ClipTextTower", "ClipTokenize"]
VOCABULARY = 49408


@dataclass
class ClipTextConfig:
    """Shape of the tower.

    Attributes:
        context_length: Tokens per text, start and end included; longer texts are cut.
        width: Hidden width.
        heads: Attention heads.
        layers: Transformer layers.
        embed_dim: Width of its output, after CLIP's text projection.
    """

    context_length: int = 77
    width: int = 512
    heads: int = 8
    layers: int = 12
    embed_dim: int = 512


class ClipTextTower(OpenClipTextEncoder):
    """The tower with random weights; a stage trains it (role `embedder`; its projection is a projector)."""

    Config = ClipTextConfig

    def __init__(self, config: ClipTextConfig, *, load_weights: bool = True, folder: Path | None = None) -> None:
        """Builds the tower; `load_weights` and `folder` have no meaning for a tower without pretrained weights."""
        text_cfg = {key: value for key, value in asdict(config).items() if key != "embed_dim"} | {"vocab_size": VOCABULARY}
        model_cfg = {"embed_dim": config.embed_dim, "text_cfg": text_cfg, "quick_gelu": False, "custom_text": True}
        tower = build_text(model_cfg, None, "text_tower")
        super().__init__(config, tower, model_cfg, ClipTokenize(config.context_length))

    def identity(self) -> dict[str, Any]:
        """Settings that change the vectors."""
        return asdict(self.config)

    def save_processor(self, folder: Path) -> None:
        """Nothing to write: settings say its shape, the vocabulary ships with open_clip."""
