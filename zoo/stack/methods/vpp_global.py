"""The global position prompt of VPP-LLaVA: a learnable picture of axes, laid over the frame of every picture before it is encoded."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...encoders.image.preprocess import ImagePreprocess
from ...errors import RecipeError
from ..hooks import StackHook, Surroundings
from .axes import axis_picture, frame_mask, frame_width


def overlaid(images: Tensor, overlay: Tensor, frame: Tensor, alpha: float) -> Tensor:
    """`alpha X + (1 - alpha) (delta ⊙ M)`; overlay and frame are resized to the pictures by the nearest pixel.

    Source: VPP-LLaVA (arXiv 2503.15426), equation 1. The whole picture is scaled by alpha, inside the frame's hole too.

    Args:
        images: X, normalised pictures (N, 3, H, W).
        overlay: delta (3, S, S), in the same scale.
        frame: M (1, S, S) of ones and zeros.
        alpha: Share of the picture.

    Returns:
        (N, 3, H, W).
    """
    framed = (overlay * frame).to(images.dtype)
    if framed.shape[-2:] != images.shape[-2:]:
        framed = F.interpolate(framed[None], size=images.shape[-2:])[0]
    return alpha * images + (1 - alpha) * framed


class VppGlobal(StackHook):
    """Lays a learnable overlay (3, S, S) over the frame of every picture, tiles of `anyres` too.

    The overlay starts as a picture of axes in the encoder's normalisation; S is the side of the encoder's input. The frame is not trained
    and not saved.

    Args:
        around: The stack.
        alpha: Share of the picture; 1 leaves it as it is.
        frame: Width of the frame in pixels; default 30 at 336, in proportion elsewhere.

    Raises:
        RecipeError: If a setting is out of range.
    """

    frame: Tensor

    def __init__(self, around: Surroundings, alpha: float = 0.95, frame: int | None = None) -> None:
        super().__init__(around)
        side = around.preprocess.size
        width = frame_width(side) if frame is None else frame
        if not 0 <= alpha <= 1:
            raise RecipeError(f"model.hooks.vpp_global.alpha: {alpha:g} must be from 0 to 1")
        if not 1 <= width <= side // 2:
            raise RecipeError(
                f"model.hooks.vpp_global.frame: {width} must be from 1 to {side // 2} pixels, half the encoder's {side} pixels"
            )
        self.alpha = alpha
        start = torch.zeros(3, side, side) if around.release is not None else normalised_axes(around.preprocess)
        self.overlay = nn.Parameter(start)
        self.register_buffer("frame", frame_mask(side, width), persistent=False)

    def pre_image(self, images: Tensor) -> Tensor:
        """See `overlaid`; of pictures of any size, so that a detector's may be prompted by the same overlay."""
        return overlaid(images, self.overlay, self.frame, self.alpha)


def normalised_axes(preprocess: ImagePreprocess) -> Tensor:
    """The picture of axes (3, S, S) as an encoder with this preprocessing is given it."""
    pixels = torch.from_numpy(np.array(axis_picture(preprocess.size))).permute(2, 0, 1).float() / 255
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (preprocess.mean, preprocess.std))
    return (pixels - mean) / std
