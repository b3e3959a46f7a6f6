"""The text encoder contract: strings -> named tensors in data workers -> one vector per string on the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class TextEncoder(nn.Module):
    """Maps strings to one vector each.

    Attributes:
        width: D of its vectors.
    """

    width: int

    def tokenizer(self) -> Any:
        """A picklable callable: sequence of strings -> {"ids": (N, T) int64, "mask": (N, T) int64}."""
        raise NotImplementedError

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(N, T) ids and mask -> (N, D), not normalised."""
        raise NotImplementedError

    def identity(self) -> dict[str, Any]:
        """What besides the weights decides its vectors (prefix, pooling, length): part of a cache's fingerprint."""
        raise NotImplementedError

    def save_processor(self, folder: Any) -> None:
        """Writes tokenizer files into a release folder."""
        raise NotImplementedError

    @torch.inference_mode()
    def embed(self, texts: Sequence[str], batch_size: int = 128) -> Tensor:
        """(N, D) float32 on the CPU for N strings; longest first, so that a batch pads little and memory peaks at once."""
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        tokenize, device = self.tokenizer(), next(self.parameters()).device
        out = torch.empty(len(texts), self.width)
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            tokens = tokenize([texts[i] for i in rows])
            out[rows] = self(tokens["ids"].to(device), tokens["mask"].to(device)).float().cpu()
        return out
