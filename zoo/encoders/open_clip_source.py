"""From the source of an open_clip tower to its checkpoint, and from its preprocessing to ours."""

from __future__ import annotations

from typing import Any

from ..checkpoints.open_clip import HUB_CHOICES, OpenClipCheckpoint, folder_checkpoint, named_checkpoint
from ..errors import ReleaseError
from .image.preprocess import ImagePreprocess
from .sources import Source

_INTERPOLATION = {"bicubic": "bicubic", "bilinear": "bilinear", "random": "bicubic"}


def checkpoint_of(source: Source, shown: str, *, weights: bool) -> OpenClipCheckpoint:
    """The checkpoint a source stands for.

    Args:
        source: A folder in open_clip's layout, or a name of open_clip's.
        shown: What messages call it.
        weights: Whether weights are wanted.

    Raises:
        ModalignError: See `folder_checkpoint` and `named_checkpoint`.
    """
    if source.folder is None:
        return named_checkpoint(source.name.rest, weights=weights)
    folder = (source.with_weights(HUB_CHOICES) if weights else source).files()
    return folder_checkpoint(folder, shown, weights=weights)


def preprocess_of(checkpoint: OpenClipCheckpoint, model_size: int, image_size: int | None) -> ImagePreprocess:
    """How open_clip prepares pictures for a checkpoint.

    Args:
        checkpoint: The checkpoint.
        model_size: Side its image tower is built for.
        image_size: A size of the user's own.

    Raises:
        ReleaseError: If the checkpoint does not say, says another size than its tower's, or asks for what cannot be done.
    """
    stated, name = checkpoint.preprocess_cfg, checkpoint.name
    absent = [key for key in ("mean", "std") if not stated.get(key)]
    if absent:
        raise ReleaseError(
            f"{name}: its preprocess_cfg does not state {' and '.join(absent)}; add what the weights were trained with, "
            "a wrong normalisation would be silently off"
        )
    size = _side(stated.get("size"))
    if size is not None and size != model_size and image_size is None:
        raise ReleaseError(
            f"{name}: its preprocess_cfg says {size} pixels, its image tower takes {model_size}; one of them is wrong"
        )
    interpolation, mode = stated.get("interpolation", "bicubic"), stated.get("resize_mode", "shortest")
    if interpolation not in _INTERPOLATION or mode not in ("shortest", "longest", "squash"):
        raise ReleaseError(f"{name}: its preprocess_cfg asks for {interpolation!r} and {mode!r}, which open_clip does not have")
    if stated.get("mode", "RGB") != "RGB":
        raise ReleaseError(f"{name}: its preprocess_cfg asks for pictures in {stated['mode']}; only RGB is known here")
    fill = int(stated.get("fill_color") or 0)
    mean, std = _triple(stated["mean"]), _triple(stated["std"])
    return ImagePreprocess(model_size, mean, std, _INTERPOLATION[interpolation], 1.0, mode, fill=(fill, fill, fill))


def _triple(value: Any) -> tuple[float, float, float]:
    red, green, blue = value if isinstance(value, list | tuple) else (value,) * 3
    return float(red), float(green), float(blue)


def _side(size: Any) -> int | None:
    if isinstance(size, list | tuple):
        return int(size[0]) if len(set(size)) == 1 else None
    return None if size is None else int(size)


def to_preprocess_cfg(preprocess: ImagePreprocess) -> dict[str, Any]:
    """The reverse, for an `open_clip_config.json`.

    Raises:
        ReleaseError: If open_clip has no words for it.
    """
    if preprocess.resized_side != preprocess.size:
        raise ReleaseError(
            f"open_clip cannot resize to {preprocess.resized_side} and crop to {preprocess.size} pixels; "
            "it always keeps the whole shorter side"
        )
    if preprocess.interpolation not in _INTERPOLATION:
        raise ReleaseError(f"open_clip cannot resize by {preprocess.interpolation!r}")
    if len(set(preprocess.fill)) != 1 and preprocess.resize_mode == "longest":
        raise ReleaseError(f"open_clip fills beside pictures with a grey, not with {preprocess.fill}")
    if preprocess.centre != "round" and preprocess.resize_mode == "shortest":
        raise ReleaseError("open_clip places an odd crop otherwise than this model's preprocessing (centre: floor)")
    return {
        "size": preprocess.size,
        "mode": "RGB",
        "mean": list(preprocess.mean),
        "std": list(preprocess.std),
        "interpolation": preprocess.interpolation,
        "resize_mode": preprocess.resize_mode,
        "fill_color": preprocess.fill[0],
    }
