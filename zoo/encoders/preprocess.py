"""Pictures -> uint8 pixels: the part of an image encoder that runs in data workers.

Pixels stay uint8 until they are on the device; the encoder normalises them there.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

_RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR, "nearest": Image.Resampling.NEAREST}


@dataclass(frozen=True)
class ImagePreprocess:
    """What an image encoder expects of its input.

    Attributes:
        size: Side of the square input, in pixels.
        mean: Per channel, in units where white is 1.
        std: Per channel, in the same units.
        interpolation: `bicubic`, `bilinear` or `nearest`.
        crop_fraction: The central share of the resized picture that is kept; 1.0 keeps all of the shorter side.
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bicubic"
    crop_fraction: float = 1.0

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a release's config."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ImagePreprocess:
        """The reverse of `to_dict`."""
        plain: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
        return cls(**plain)

    def __call__(self, image: Image.Image) -> Tensor:
        """Resizes the shorter side, crops the centre: picture of any mode -> (3, size, size) uint8.

        Every rounding is the one of timm's evaluation transform, so that a checkpoint sees what it was measured with.
        """
        image = _rgb(image)
        target = math.floor(self.size / self.crop_fraction)
        if image.size != (target, target):
            width, height = (target * side // min(image.size) for side in image.size)
            image = image.resize((width, height), _RESAMPLING[self.interpolation])
        left, top = (round((side - self.size) / 2) for side in image.size)
        return _pixels(image.crop((left, top, left + self.size, top + self.size)))


@dataclass(frozen=True)
class Augmentation:
    """Random views for training; everything off is the plain preprocessing.

    Attributes:
        scale: Smallest share of the picture's area a random crop may keep; 1.0 turns crops off.
        ratio: Widest aspect ratio of a crop (and its inverse the narrowest).
        flip: Probability of a horizontal mirror image.
        color: Strength of brightness, contrast and saturation jitter.
    """

    scale: float = 1.0
    ratio: float = 1.3333
    flip: float = 0.0
    color: float = 0.0

    @property
    def off(self) -> bool:
        """Whether views are always the plain picture, which is what a feature cache needs."""
        return self.scale >= 1.0 and self.flip == 0.0 and self.color == 0.0

    def __call__(self, image: Image.Image, preprocess: ImagePreprocess, rng: np.random.Generator) -> Tensor:
        """One random view, a function of the generator alone: -> (3, size, size) uint8."""
        if self.off:
            return preprocess(image)
        from torchvision.transforms import v2
        from torchvision.transforms.v2 import functional as tv

        image = _rgb(image)
        with torch.random.fork_rng(devices=[]):  # torchvision draws from the global generator
            torch.default_generator.manual_seed(int(rng.integers(2**62)))  # torch.manual_seed would reseed the GPUs too
            if self.scale < 1.0:
                ratio = (1 / self.ratio, self.ratio)
                mode = v2.InterpolationMode(preprocess.interpolation)
                image = v2.RandomResizedCrop(preprocess.size, scale=(self.scale, 1.0), ratio=ratio, interpolation=mode)(image)
            if self.color:
                image = v2.ColorJitter(self.color, self.color, self.color)(image)
        if rng.random() < self.flip:
            image = tv.horizontal_flip(image)
        return _pixels(image) if self.scale < 1.0 else preprocess(image)


def _rgb(image: Image.Image) -> Image.Image:
    """Any mode -> RGB; what is transparent becomes white, as in the data layer, not whatever colour lies hidden under it."""
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA"):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (255, 255, 255, 255)), image)
    return image.convert("RGB")


def _pixels(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).contiguous()
