"""Random views of a picture, drawn first and cut afterwards, so that only what the view needs is decoded and resized.

The crops are those of torchvision's and timm's `RandomResizedCrop` (ten tries at an area and a ratio, then the largest central crop).
Pixels are resized as uint8 by torch's own antialiased kernels, several times as fast as Pillow's and within a level of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from typing_extensions import TypeIs

_TRIES = 10
#: smallest ratio of decoded to wanted pixels at which a coarser decoding is still within 2/255 of the full one (mean of a picture)
COARSE_MARGIN = 2.0
_PILLOW = {name: Image.Resampling[name.upper()] for name in ("nearest", "bilinear", "bicubic", "lanczos")}
_TORCH = ("bilinear", "bicubic")


@dataclass(frozen=True)
class Box:
    """A rectangle in a picture, in whole pixels: left, top, width, height."""

    left: int
    top: int
    width: int
    height: int

    @property
    def corners(self) -> tuple[int, int, int, int]:
        """(left, top, right, bottom)."""
        return self.left, self.top, self.left + self.width, self.top + self.height


class EncodedPicture(Protocol):
    """A picture that is not decoded yet; the data layer makes them."""

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) as it will be seen."""

    def decoded(self) -> Image.Image:
        """The whole picture in RGB."""

    def coarse(self, factor: int) -> tuple[Image.Image, int]:
        """(the picture in RGB at 1/f of its size, f): f is at most ``factor``, and 1 where its format has no cheap coarse form."""


def is_encoded(picture: Image.Image | EncodedPicture) -> TypeIs[EncodedPicture]:
    """Whether a picture is still to be decoded."""
    return not isinstance(picture, Image.Image)


def draw_crop(width: int, height: int, scale: float, ratio: float, rng: np.random.Generator) -> Box:
    """Draws a crop as `RandomResizedCrop` does.

    Args:
        width: Of the picture.
        height: Of the picture.
        scale: Smallest share of its area; the largest is 1.
        ratio: Widest aspect ratio; the narrowest is its inverse. Its logarithm is uniform.
        rng: Where chance comes from.
    """
    limit = math.log(ratio)
    for _ in range(_TRIES):
        area = width * height * rng.uniform(scale, 1.0)
        aspect = math.exp(rng.uniform(-limit, limit))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return Box(int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1)), w, h)
    w = min(width, max(1, round(height * ratio)))
    h = min(height, max(1, round(width * ratio)))
    return Box((width - w) // 2, (height - h) // 2, w, h)


def cut(picture: Image.Image | EncodedPicture, box: Box, size: int, interpolation: str = "bicubic") -> Tensor:
    """Cuts a box out of a picture and resizes it: -> (3, size, size) uint8.

    A JPEG with at least `COARSE_MARGIN` times as many pixels as wanted, each way, is decoded at 1/2, 1/4 or 1/8 of its size.

    Args:
        picture: In RGB, or not decoded yet.
        box: What to cut, in whole pixels.
        size: Side of the square result.
        interpolation: `bicubic`, `bilinear` (both antialiased), `lanczos` or `nearest`.
    """
    wanted = int(min(box.width, box.height) / (size * COARSE_MARGIN))
    image, factor = picture.coarse(wanted) if is_encoded(picture) else (picture, 1)
    if factor > 1 or interpolation not in _TORCH:
        return _cut_between_pixels(image, box, factor, size, interpolation)
    left, top, right, bottom = box.corners
    pixels = torch.from_numpy(np.array(image))[top:bottom, left:right].permute(2, 0, 1)[None]
    if pixels.shape[-2:] == (size, size):
        return pixels[0].contiguous()
    resized = torch.nn.functional.interpolate(pixels, size=(size, size), mode=interpolation, antialias=True, align_corners=False)
    return resized[0].contiguous()


def _cut_between_pixels(picture: Image.Image, box: Box, factor: int, size: int, interpolation: str) -> Tensor:
    """In a coarse picture the box lies between pixels, which only Pillow can cut; rounding it would shift the view."""
    left, top, right, bottom = (side / factor for side in box.corners)
    edges = (left, top, min(right, picture.width), min(bottom, picture.height))
    small = picture.resize((size, size), _PILLOW[interpolation], box=edges)
    return torch.from_numpy(np.array(small)).permute(2, 0, 1).contiguous()


def jitter(pixels: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    """Changes brightness, contrast and saturation by factors uniform in [1 - strength, 1 + strength], in random order.

    Args:
        pixels: (3, H, W) uint8.
        strength: At least 0; a factor below 0 counts as 0.
        rng: Where chance comes from.
    """
    from torchvision.transforms.v2 import functional as tv

    changes = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation)
    factors = rng.uniform(max(0.0, 1.0 - strength), 1.0 + strength, len(changes))
    for number in rng.permutation(len(changes)):
        pixels = changes[number](pixels, float(factors[number]))
    return pixels
