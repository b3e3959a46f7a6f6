"""The window a model is given: its checks, and values for its missing entries where a model knows no mask of its own."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import AssemblyError


def check_window(values: Tensor, look_back: int, what: str) -> None:
    """Refuses a window that is not (B, L, C) with L the look-back of the model.

    Args:
        values: The batch's `values`.
        look_back: Steps the model was built for.
        what: What messages call the model.

    Raises:
        AssemblyError: With both numbers.
    """
    if values.ndim != 3 or values.shape[1] != look_back:
        steps = f"{values.shape[1]} steps" if values.ndim == 3 else f"shape {tuple(values.shape)}"
        raise AssemblyError(
            f"{what}: the window has {steps}, model.look_back is {look_back}; a model sees exactly its look-back (batch, {look_back}, "
            "channels): give that many steps, or train one for this look-back"
        )


def window_means(values: Tensor, observed: Tensor | None) -> Tensor:
    """Mean of what was observed in each window, channel by channel; 0 (the training mean) where nothing was.

    Args:
        values: (B, L, C), scaled.
        observed: (B, L, C) bool; None means that everything was.

    Returns:
        (B, 1, C).
    """
    if observed is None:
        return values.mean(1, keepdim=True)
    kept = observed.to(values.dtype)
    return (values * kept).sum(1, keepdim=True) / kept.sum(1, keepdim=True).clamp(min=1)


def filled(values: Tensor, observed: Tensor | None) -> Tensor:
    """Each missing entry becomes the last value observed before it, or the window's mean where there is none before it.

    Args:
        values: (B, L, C), scaled; what stands at missing entries is not read.
        observed: (B, L, C) bool; None means that everything was, and returns `values` themselves.

    Returns:
        (B, L, C).
    """
    if observed is None:
        return values
    steps = torch.arange(values.shape[1], device=values.device)[None, :, None]
    last = torch.where(observed, steps, -1).cummax(1).values
    before = values.gather(1, last.clamp(min=0))
    return torch.where(last < 0, window_means(values.masked_fill(~observed, 0), observed), before)
