"""The text encoder contract: strings -> named tensors in data workers -> one vector per string on the device.

A new one is a file with a subclass of `TextEncoder` and a line in `zoo/registry.py` (table ENCODERS, name `text.KIND`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import AssemblyError
from ..image.base import uses_quick_gelu
from ..sources import Source


class TextEncoder(nn.Module):
    """Maps strings to one vector each.

    Attributes:
        width: D of its vectors.
        fixed_length: Whether its tokenizer pads every text to the same length; then sorting texts by length gains nothing.
    """

    config: Any
    width: int
    fixed_length: bool = False

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        """Whether a folder holds a model in this encoder's layout."""
        raise NotImplementedError

    @classmethod
    def build(cls, config: Any, source: Source, *, load_weights: bool) -> TextEncoder:
        """Builds the encoder from where its files are; see `ImageEncoder.build`."""
        raise NotImplementedError

    def tokenizer(self) -> Any:
        """A picklable callable: sequence of strings -> {"ids": (N, T) int64, "mask": (N, T) int64}."""
        raise NotImplementedError

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(N, T) ids and mask -> (N, D), not normalised."""
        raise NotImplementedError

    def identity(self) -> dict[str, Any]:
        """What besides the weights decides its vectors (prefix, pooling, length): part of a cache's fingerprint."""
        raise NotImplementedError

    def save_processor(self, folder: Path) -> None:
        """Writes configuration and tokenizer files into a release folder."""
        raise NotImplementedError

    @property
    def num_layers(self) -> int:
        """Number of layers for layer-wise rates: blocks, and one before and one after them."""
        raise NotImplementedError

    def layer_of(self, parameter: str) -> int:
        """Layer of a parameter (named as in `named_parameters`): 0 nearest the input, `num_layers - 1` nearest the output."""
        raise NotImplementedError

    def split_projection(self) -> nn.Module | None:
        """Takes the checkpoint's own projection into a joint space off the encoder and returns it; see `ImageEncoder`."""
        return None

    @property
    def quick_gelu(self) -> bool:
        """Whether its network computes OpenAI's approximation of GELU; weights trained with one are wrong with the other."""
        return uses_quick_gelu(self)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recomputes activations in the backward pass instead of keeping them.

        Raises:
            AssemblyError: If the network cannot.
        """
        raise AssemblyError("this text encoder cannot recompute activations (gradient checkpointing); turn it off")

    @torch.inference_mode()
    def embed(self, texts: Sequence[str], batch_size: int = 128) -> Tensor:
        """(N, D) float32 on the CPU for N strings; longest first, so that a batch pads little and memory peaks at once."""
        order = list(range(len(texts)))
        if not self.fixed_length:
            order.sort(key=lambda i: -len(texts[i]))
        tokenize, device = self.tokenizer(), next(self.parameters()).device
        out = torch.empty(len(texts), self.width)
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            tokens = tokenize([texts[i] for i in rows])
            out[rows] = self(tokens["ids"].to(device), tokens["mask"].to(device)).float().cpu()
        return out
