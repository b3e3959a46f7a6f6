"""The backbone that a model's settings ask for, and the token embeddings that go with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import RecipeError
from .backbone import AttentionBackbone, Backbone, DecoderBackbone, NoBackbone
from .loading import LanguageModelConfig, LanguageSwitch, load_decoder, read_config, token_table


@dataclass
class Language:
    """What `build_language` returns.

    Attributes:
        backbone: What stands in the language model's place.
        table: Token embeddings (V, D), frozen; None if not asked for.
        hf_config: The transformers configuration, cut to N blocks; a release keeps it.
    """

    backbone: Backbone
    table: Tensor | None
    hf_config: Any


def build_language(
    config: LanguageModelConfig, switch: LanguageSwitch = "pretrained", *, release: Path | None = None, table: bool = False
) -> Language:
    """Builds the backbone.

    The switch changes the blocks alone: the token embeddings are the pretrained model's whatever stands behind them, so that a
    difference between two switches is the blocks' doing. Only an architecture without a name has random embeddings.

    Args:
        config: Which model.
        switch: `pretrained`, `random` (the same blocks, initialised anew), `attention` (`AttentionBackbone`) or `none` (`NoBackbone`).
        release: Folder of a release: only shapes are built, from its `language/`, and no source is read.
        table: Also return the token embeddings.

    Raises:
        RecipeError: If pretrained weights are asked of an architecture without a name.
        AssemblyError: If the model does not suit.
        ReleaseError: If a file is missing or damaged.
    """
    if switch == "pretrained" and config.name is None and release is None:
        raise RecipeError(
            "model.llm: pretrained needs model.language.name; an architecture alone has random weights (llm: random)"
        )
    hf_config = read_config(config, None if release is None else release / "language")
    table = table and release is None
    pretrained = switch == "pretrained" and release is None
    body = load_decoder(config, hf_config, pretrained=pretrained) if switch in ("pretrained", "random") else None
    embeddings = _table(config, hf_config, body if pretrained or config.name is None else None) if table else None
    return Language(_backbone(config, switch, hf_config, body), embeddings, hf_config)


def _backbone(config: LanguageModelConfig, switch: LanguageSwitch, hf_config: Any, body: Any) -> Backbone:
    if body is not None:
        return DecoderBackbone(body, config.shown)
    longest = getattr(hf_config, "max_position_embeddings", None) or 2**20
    if switch == "attention":
        return AttentionBackbone(hf_config.hidden_size, hf_config.num_attention_heads, longest)
    return NoBackbone(hf_config.hidden_size, longest)


def _table(config: LanguageModelConfig, hf_config: Any, body: Any) -> Tensor:
    """The embeddings of a body that is there already, or of one that is read for their sake."""
    if body is None:
        body = load_decoder(config, hf_config, pretrained=config.name is not None)
    return token_table(body).clone()
