"""transformers' image processors as `ImagePreprocess`: read from their settings, then compared with what they really do.

Settings alone do not say everything: some classes have steps of their own. So a probe picture goes through both, and a processor that
gives other pixels is refused, never replaced by a default.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...errors import ReleaseError
from .preprocess import ImagePreprocess

_INTERPOLATION = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
_REFUSED = {
    "do_pad": "fills pictures to a common size",
    "do_flip_channel_order": "takes blue before red",
    "do_reduce_labels": "is for segmentation",
    "do_thumbnail": "makes thumbnails",
    "do_align_long_axis": "turns pictures",
    "do_image_splitting": "cuts pictures into several",
}
TOLERANCE = 1.0  # mean difference in levels of 255; what two implementations of the same filter differ by is far below


def preprocess_of(folder: Path, shown: str, image_size: int | None) -> ImagePreprocess:
    """What a folder's preprocessor_config.json asks for.

    Args:
        folder: A transformers folder.
        shown: What messages call the model.
        image_size: A size of the user's own; the crop keeps its share.

    Raises:
        ReleaseError: If there is none, or it asks for something that cannot be expressed here.
    """
    processor = _processor(folder, shown)
    settings = _plain(processor)
    preprocess = _from_settings(settings, shown)
    _compare(preprocess, processor, shown)
    if image_size is None:
        return preprocess
    resized = round(preprocess.resized_side * image_size / preprocess.size)
    return ImagePreprocess.from_dict({**preprocess.to_dict(), "size": image_size, "resize_to": resized})


def _processor(folder: Path, shown: str) -> Any:
    from transformers import AutoImageProcessor

    if not (folder / "preprocessor_config.json").is_file() and not (folder / "processor_config.json").is_file():
        raise ReleaseError(
            f"{shown}: has no preprocessor_config.json, so nothing says how pictures are prepared; get the file that belongs to the weights"
        )
    try:
        return AutoImageProcessor.from_pretrained(folder, backend="pil", trust_remote_code=False)
    except (OSError, ValueError, ImportError) as error:
        raise ReleaseError(f"{shown}: its image processor cannot be read ({str(error).splitlines()[0][:200]})") from None


def _plain(processor: Any) -> dict[str, Any]:
    return {key: value for key, value in processor.to_dict().items() if value is not None}


def _from_settings(settings: dict[str, Any], shown: str) -> ImagePreprocess:
    for key, what in _REFUSED.items():
        if settings.get(key):
            raise ReleaseError(f"{shown}: its image processor {what} ({key}), which cannot be done here")
    if not settings.get("do_resize", True):
        raise ReleaseError(f"{shown}: its image processor does not resize (do_resize), but a batch needs pictures of one size")
    if not settings.get("do_rescale", True) or abs(settings.get("rescale_factor", 1 / 255) * 255 - 1) > 1e-6:
        raise ReleaseError(f"{shown}: its image processor scales pixels by {settings.get('rescale_factor')}, not by 1/255")
    if (filter_number := int(settings.get("resample", 2))) not in _INTERPOLATION:
        raise ReleaseError(f"{shown}: its image processor resizes by filter {filter_number}, which cannot be done here")
    normal = settings.get("do_normalize", True)
    common: dict[str, Any] = {
        "mean": tuple(settings["image_mean"]) if normal else (0.0, 0.0, 0.0),
        "std": tuple(settings["image_std"]) if normal else (1.0, 1.0, 1.0),
        "interpolation": _INTERPOLATION[filter_number],
        "centre": "floor",
    }
    return ImagePreprocess(**common, **_geometry(settings, shown))


def _geometry(settings: dict[str, Any], shown: str) -> dict[str, Any]:
    size = settings["size"] if isinstance(settings["size"], dict) else {"shortest_edge": settings["size"]}
    crop = settings.get("crop_size") if settings.get("do_center_crop") else None
    if "crop_pct" in settings and "shortest_edge" in size:  # ConvNeXt: a crop share below 384 pixels, squash from there
        side = int(size["shortest_edge"])
        if side >= 384:
            return {"size": side, "resize_mode": "squash"}
        return {"size": side, "resize_to": int(side / settings["crop_pct"])}
    if set(size) == {"height", "width"} and size["height"] == size["width"]:
        side = int(size["height"])
        return {"size": _square(crop, shown) if crop else side, "resize_mode": "squash", "resize_to": side if crop else None}
    if set(size) == {"shortest_edge"} and crop:
        return {"size": _square(crop, shown), "resize_to": int(size["shortest_edge"])}
    raise ReleaseError(
        f"{shown}: its image processor makes pictures of size {size}{f', cropped to {crop}' if crop else ''}, not squares"
    )


def _square(crop: Any, shown: str) -> int:
    sides = {int(crop[key]) for key in ("height", "width")} if isinstance(crop, dict) else {int(crop)}
    if len(sides) != 1:
        raise ReleaseError(f"{shown}: its image processor crops to {crop}, not to a square")
    return sides.pop()


def _compare(preprocess: ImagePreprocess, processor: Any, shown: str) -> None:
    for width, height in ((3, 2), (4, 5)):
        picture = _probe(math.ceil(preprocess.resized_side * 0.4) * width, math.ceil(preprocess.resized_side * 0.4) * height)
        theirs = torch.as_tensor(np.asarray(processor(picture, return_tensors="np")["pixel_values"])[0])
        ours = _normalised(preprocess, picture)
        if theirs.shape != ours.shape:
            raise ReleaseError(f"{shown}: its image processor gives {tuple(theirs.shape)}, its settings say {tuple(ours.shape)}")
        levels = 255 * float(((theirs - ours) * torch.tensor(preprocess.std).view(3, 1, 1)).abs().mean())
        if levels > TOLERANCE:
            raise ReleaseError(
                f"{shown}: its image processor ({type(processor).__name__}) does more than its settings say: "
                f"its pixels are {levels:.0f} of 255 levels off on average, so it cannot be followed here"
            )


def _probe(width: int, height: int) -> Image.Image:
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


def _normalised(preprocess: ImagePreprocess, picture: Image.Image) -> Tensor:
    pixels = preprocess(picture).float() / 255
    return (pixels - torch.tensor(preprocess.mean).view(3, 1, 1)) / torch.tensor(preprocess.std).view(3, 1, 1)
