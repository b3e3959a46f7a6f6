"""CLIP's text tower from scratch: a causal transformer over byte-pair tokens, read off at the end-of-text token.

Built from open_clip's own modules and tokenizer, so that its checkpoints fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .text import TextEncoder

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


class ClipTokenize:
    """Picklable byte-pair tokenisation with CLIP's vocabulary."""

    def __init__(self, context_length: int) -> None:
        self.context_length = context_length
        self._tokenizer: Any = None

    def __call__(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """N strings -> ids (N, T) padded with 0 to the context length, and a mask up to the end token."""
        if self._tokenizer is None:
            from open_clip.tokenizer import SimpleTokenizer

            self._tokenizer = SimpleTokenizer(context_length=self.context_length)
        ids = self._tokenizer(list(texts))
        ends = ids.argmax(1, keepdim=True)  # the end token has the largest id
        return {"ids": ids, "mask": (torch.arange(ids.shape[1])[None] <= ends).long()}

    def __getstate__(self) -> dict[str, Any]:
        return {"context_length": self.context_length, "_tokenizer": None}


class ClipTextTower(TextEncoder):
    """The tower with random weights; a stage trains it (role `embedder`)."""

    Config = ClipTextConfig

    def __init__(self, config: ClipTextConfig, *, load_weights: bool = True, folder: Path | None = None) -> None:
        """Builds the tower; `load_weights` and `folder` have no meaning for a tower without pretrained weights."""
        super().__init__()
        from open_clip.transformer import TextTransformer

        self.config = config
        self.model = TextTransformer(
            context_length=config.context_length,
            vocab_size=VOCABULARY,
            width=config.width,
            heads=config.heads,
            layers=config.layers,
            output_dim=config.embed_dim,
        )
        self.width = config.embed_dim

    def tokenizer(self) -> ClipTokenize:
        """See `TextEncoder.tokenizer`."""
        return ClipTokenize(self.config.context_length)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(N, T) ids -> (N, D) at the end token."""
        return self.model(ids)

    def identity(self) -> dict[str, Any]:
        """Settings that change the vectors."""
        return asdict(self.config)

    def save_processor(self, folder: Path) -> None:
        """Nothing to write: the vocabulary ships with open_clip."""
