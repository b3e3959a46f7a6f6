"""The local position prompt of VPP-LLaVA: states of a detector's object queries, placed behind each picture's own tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from ...encoders.image.preprocess import ImagePreprocess
from ...errors import AssemblyError, RecipeError
from ...projectors.mlp import MlpProjector
from ..hooks import StackHook, Surroundings
from .detector import build_detector
from .detector_config import DetectorConfig

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet
_STRIDE = 32


class VppLocal(StackHook):
    """Shows every picture to a DETR and places its object queries, projected, behind the picture's own tokens.

    The detector has pixels of its own: the long side is resized to `size`, the picture stands in the middle of a square of zeros, and
    the rest of the square is not masked. Where `vpp_global` is among the hooks, its overlay lies over that square too, resized; it stays
    in the scale of the other encoder, as in the official code. No detection is learnt, only the answer.

    Source: VPP-LLaVA (arXiv 2503.15426), section 3.2, and its official code.

    Args:
        around: The stack.
        detector: The DETR.
        size: Side of its input.
        hidden: Width between the two layers of the projector.
        overlay: Lay the global prompt over the detector's pictures too, where there is one.

    Raises:
        RecipeError: If a number is out of range.
    """

    pixels_too = "detector_image"
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        around: Surroundings,
        detector: DetectorConfig | None = None,
        size: int = 640,
        hidden: int = 1024,
        overlay: bool = True,
    ) -> None:
        super().__init__(around)
        if size < _STRIDE or hidden < 1:
            raise RecipeError(f"model.hooks.vpp_local: size {size} must be {_STRIDE} or more, hidden {hidden} must be 1 or more")
        self.preprocess = ImagePreprocess(size, _MEAN, _STD, "bilinear", resize_mode="longest")
        self.detector = build_detector(detector or DetectorConfig(), around.release)
        self.projector = MlpProjector(self.detector.config.width, around.width, hidden=hidden)
        self.extra_tokens = self.detector.config.queries
        self.overlay = overlay
        self._prompts: tuple[Any, ...] = ()  # in a tuple: the other hook is not a part of this one
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_STD).view(1, 3, 1, 1), persistent=False)

    def meet(self, hooks: Mapping[str, StackHook]) -> None:
        """Finds the global prompt."""
        self._prompts = (hooks["vpp_global"],) if self.overlay and "vpp_global" in hooks else ()

    def resolved(self) -> dict[str, Any]:
        """The detector's sizes."""
        return {"detector": asdict(self.detector.config)}

    def token_source(self, batch: Mapping[str, Any], pictures: int) -> Tensor:
        """(M, queries, D) of the M pictures of a batch.

        Raises:
            AssemblyError: If the batch lacks the detector's pixels, or has some for another number of pictures.
        """
        pixels = batch.get(self.pixels_too)
        if pixels is None or len(pixels) != pictures:
            there = "none" if pixels is None else len(pixels)
            raise AssemblyError(
                f"vpp_local: {pictures} pictures in the batch, but pixels for the detector ({self.pixels_too}) of {there}; prepare it "
                "with the model's own prepare and collate"
            )
        return self.projector(self.detector(self.shown(pixels, batch["image_sizes"])))

    def shown(self, pixels: Tensor, sizes: Tensor) -> Tensor:
        """What the detector sees.

        Args:
            pixels: (M, 3, size, size) uint8.
            sizes: (M, 2), (width, height) of the stored pictures; (0, 2) of a batch with a blank instead of pictures.

        Returns:
            Normalised pictures on squares of zeros, the overlay over them; in float32.
        """
        images = (pixels.float() / 255 - self.mean.float()) / self.std.float()
        inside = picture_area(sizes, self.preprocess.size) if len(sizes) else pixels.new_zeros(len(pixels), 1, 1, 1)
        images = images * inside.to(images.dtype)
        for prompt in self._prompts:
            images = prompt.pre_image(images)
        return images


def picture_area(sizes: Tensor, side: int) -> Tensor:
    """Where on its square a picture lies, whose long side was resized to the square's.

    Args:
        sizes: (M, 2), (width, height) of the stored pictures.
        side: Of the square.

    Returns:
        (M, 1, side, side), True on the picture.
    """
    # in Python's floats, halves to even: the rounding of `ImagePreprocess`
    kept = [[max(1, round(own / (max(pair) / side))) for own in pair] for pair in sizes.tolist()]
    spans = torch.tensor(kept, device=sizes.device)
    first = (side - spans) // 2
    places = torch.arange(side, device=sizes.device)
    within = (places >= first[..., None]) & (places < (first + spans)[..., None])  # (M, 2, side)
    return within[:, None, 1, :, None] & within[:, None, 0, None, :]
