"""Pictures -> uint8 pixels: the part of an image encoder that runs in data workers.

Pixels stay uint8 until they are on the device; the encoder normalises them there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...errors import AssemblyError, nearest
from .random_view import EncodedPicture, cut, draw_crop, is_encoded, jitter

_RESAMPLING = {name: Image.Resampling[name.upper()] for name in ("bicubic", "bilinear", "nearest", "lanczos")}
INTERPOLATIONS = tuple(_RESAMPLING)
ResizeMode = Literal["shortest", "longest", "squash", "pad"]
MAX_SIDE = 8192  # pixels: far above what any network takes, far below what fills a memory


@dataclass(frozen=True)
class ImagePreprocess:
    """What an image encoder expects of its input.

    Attributes:
        size: Side of the square input, in pixels.
        mean: Per channel, in units where white is 1.
        std: Per channel, in the same units.
        interpolation: `bicubic`, `bilinear`, `nearest` or `lanczos`.
        crop_fraction: The central share of the resized picture that is kept; 1.0 keeps all of it (of the shorter side).
        resize_mode: What is resized to `size / crop_fraction`: the `shortest` side (the rest is cropped), the `longest` side (the rest
            is filled), both sides, whatever the picture's shape (`squash`), or the square that the picture is put on first, of its longer
            side and filled beside it (`pad`: as LLaVA-1.5 does, where `longest` fills after resizing).
        resize_to: Side to resize to, where it is not `size / crop_fraction` rounded down.
        fill: Colour beside the picture with `longest` and `pad`, 0 to 255 per channel.
        centre: How a crop with an odd margin is placed: to the nearest even pixel (`round`, torchvision) or up and left (`floor`).
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bicubic"
    crop_fraction: float = 1.0
    resize_mode: ResizeMode = "shortest"
    resize_to: int | None = None
    fill: tuple[int, int, int] = (0, 0, 0)
    centre: Literal["round", "floor"] = "round"

    def __post_init__(self) -> None:
        """Refuses what would fail, or compute nonsense, only once pictures come.

        Raises:
            AssemblyError: Naming the setting, its value and what it may be.
        """
        _check_side(self.size, "size")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if not (_is_triple(values, int | float) and all(math.isfinite(value) for value in values)):
                raise _refused(name, values, "three finite numbers")
        if min(self.std) <= 0:
            raise _refused("std", self.std, "three numbers above 0")
        for name, value, known in (
            ("interpolation", self.interpolation, INTERPOLATIONS),
            ("resize_mode", self.resize_mode, get_args(ResizeMode)),
            ("centre", self.centre, ("round", "floor")),
        ):
            if value not in known:
                raise _refused(name, value, f"one of {', '.join(known)}{nearest(str(value), known)}")
        if not (isinstance(self.crop_fraction, int | float) and 0 < self.crop_fraction < math.inf):
            raise _refused("crop_fraction", self.crop_fraction, "a finite number above 0")
        if not (_is_triple(self.fill, int) and all(0 <= value <= 255 for value in self.fill)):
            raise _refused("fill", self.fill, "three whole numbers from 0 to 255")
        if self.resize_to is not None:
            _check_side(self.resize_to, "resize_to")
        _check_side(self.resized_side, "size / crop_fraction")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a release's config; settings added since the first release format only where they say something."""
        plain = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        return {key: value for key, value in plain.items() if key not in _LATER or value != _LATER[key]}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ImagePreprocess:
        """The reverse of `to_dict`.

        Raises:
            AssemblyError: If a setting is unknown, missing or out of range.
        """
        if not isinstance(values, Mapping):
            raise AssemblyError(f"image_preprocess: expected a mapping of settings, got {values!r}")
        wrong = sorted({*values} - {*cls.__dataclass_fields__} | {"size", "mean", "std"} - {*values})
        if wrong:
            raise AssemblyError(f"image_preprocess: unknown or missing settings ({', '.join(wrong)})")
        plain: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
        return cls(**plain)

    @property
    def resized_side(self) -> int:
        """The side a picture is resized to before it is cropped or filled."""
        return self.resize_to or math.floor(self.size / self.crop_fraction)

    def __call__(self, image: Image.Image) -> Tensor:
        """Resizes, then crops or fills around the centre: picture of any mode -> (3, size, size) uint8.

        Every rounding is the one of timm's and open_clip's evaluation transforms, so that a checkpoint sees what it was measured with.
        """
        image = as_rgb(image)
        if self.resize_mode == "pad":
            image = _centred(image, (max(image.size), max(image.size)), self.fill)
        resized = self._resized_size(*image.size)
        if image.size != resized:
            image = image.resize(resized, _RESAMPLING[self.interpolation])
        return _pixels(self._central(image))

    def _resized_size(self, width: int, height: int) -> tuple[int, int]:
        side = self.resized_side
        if self.resize_mode == "squash":
            return side, side
        if self.resize_mode == "longest":
            ratio = max(width / side, height / side)
            return max(1, round(width / ratio)), max(1, round(height / ratio))
        if (width, height) == (side, side):
            return side, side
        return side * width // min(width, height), side * height // min(width, height)

    def _central(self, image: Image.Image) -> Image.Image:
        if min(image.size) < self.size:
            image = _centred(image, (max(image.width, self.size), max(image.height, self.size)), self.fill)
        place = round if self.centre == "round" else math.floor
        left, top = (place((side - self.size) / 2) for side in image.size)
        return image.crop((left, top, left + self.size, top + self.size))


def _centred(image: Image.Image, size: tuple[int, int], fill: tuple[int, int, int]) -> Image.Image:
    """The picture in the middle of a larger one of one colour."""
    if image.size == size:
        return image
    filled = Image.new("RGB", size, fill)
    filled.paste(image, ((size[0] - image.width) // 2, (size[1] - image.height) // 2))
    return filled


def _check_side(side: Any, name: str) -> None:
    if type(side) is not int or not 1 <= side <= MAX_SIDE:
        raise _refused(name, side, f"a whole number from 1 to {MAX_SIDE}")


def _is_triple(values: Any, kind: Any) -> bool:
    return (
        isinstance(values, tuple)
        and len(values) == 3
        and all(isinstance(value, kind) and not isinstance(value, bool) for value in values)
    )


def _refused(name: str, value: Any, wanted: str) -> AssemblyError:
    return AssemblyError(f"image_preprocess.{name}: {value!r} must be {wanted}")


#: settings the first release format did not know, with the values that stand for its behaviour
_LATER: dict[str, Any] = {"resize_mode": "shortest", "resize_to": None, "fill": [0, 0, 0], "centre": "round"}


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

    def __call__(self, image: Image.Image | EncodedPicture, preprocess: ImagePreprocess, rng: np.random.Generator) -> Tensor:
        """One random view, a function of the generator alone: -> (3, size, size) uint8."""
        picture = image if is_encoded(image) else as_rgb(image)
        if self.scale < 1.0:
            crop = draw_crop(*picture.size, self.scale, self.ratio, rng)
            pixels = cut(picture, crop, preprocess.size, preprocess.interpolation)
        else:
            pixels = preprocess(picture.decoded() if is_encoded(picture) else picture)
        if self.color:
            pixels = jitter(pixels, self.color, rng)
        return pixels.flip(2) if self.flip and rng.random() < self.flip else pixels


def as_rgb(image: Image.Image) -> Image.Image:
    """Any mode -> RGB; what is transparent becomes white, as in the data layer, not whatever colour lies hidden under it."""
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA"):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (255, 255, 255, 255)), image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _pixels(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).contiguous()
