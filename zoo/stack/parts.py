"""The parts of a stack, as both what computes with them and what keeps them see them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..encoders.image.base import ImageEncoder
from ..language.causal import CausalLanguageModel
from ..projectors.base import Projector
from .pictures import PictureLayout

#: where the language model's own weights are kept; the language model itself keeps its adapters alone
STORED = "language_base"


class StackParts(nn.Module):
    """What a stack is made of.

    Attributes:
        config: A `StackConfig`.
        image: The image encoder.
        projector: From its features to the language model.
        hooks: What methods add, by name.
        newline: (D,), the learned token behind a row of tiles' features; None for none.
        language: The language model.
        layout: How pictures become tiles and tokens.
    """

    config: Any
    image: ImageEncoder
    projector: Projector
    hooks: Any
    newline: nn.Parameter | None
    language: CausalLanguageModel
    layout: PictureLayout

    @property
    def feature_layers(self) -> list[int | None]:
        """The hidden states that are taken; None is the encoder's output."""
        layers = self.config.feature_layer
        return list(layers) if isinstance(layers, list) else [layers]

    @property
    def feature_width(self) -> int:
        """D_v of the features that enter the projector."""
        return self.image.token_width * len(self.feature_layers)

    @property
    def device(self) -> torch.device:
        """Where its parameters are."""
        return self.language.table.device
