"""Contrastive losses compute in float32 at least, whatever the autocast: at s = 100 bfloat16 logits lose whole units."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(tensor: Tensor) -> Tensor:
    """The tensor in float32; float64 stays as it is."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def no_autocast(like: Tensor) -> torch.autocast:
    """A context in which products keep the precision of their factors, on the device of `like`."""
    return torch.autocast(like.device.type, enabled=False)
