"""Image encoders from timm: any of its models by name, a local folder or a hub repository in its layout, or an asset."""

from __future__ import annotations

import inspect
import pickle
from functools import cached_property
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from ...checkpoints.weights import check_safetensors
from ...errors import AssemblyError, NameGrammarError, ReleaseError, nearest
from ..sources import Source, read_json
from .base import OUTPUT, ImageEncoder
from .preprocess import INTERPOLATIONS, ImagePreprocess
from .timm_cuts import above_block, below_block, block_cuts, block_number, parameter_below_block

_RESIZE = {"center": "shortest", "squash": "squash", "border": "longest"}
_WEIGHTS = (("model.safetensors",), ("pytorch_model.bin",))


class TimmImageEncoder(ImageEncoder):
    """A timm model without its classifier."""

    def __init__(self, config: Any, trunk: Any, preprocess: ImagePreprocess) -> None:
        """Wraps a timm model; `build` makes one from a name.

        Args:
            config: An `ImageEncoderConfig`.
            trunk: The model, without a classifier.
            preprocess: What turns pictures into its input.
        """
        super().__init__(config, preprocess)
        self.trunk = trunk
        self.width = int(getattr(trunk, "head_hidden_size", None) or trunk.num_features)
        self.token_width = int(self.trunk.num_features)
        self.prefix_tokens = int(getattr(trunk, "num_prefix_tokens", 0) or 0)

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        """Timm's config.json names an architecture; transformers' names a model type."""
        path = folder / "config.json"
        if not path.is_file():
            return False
        values = read_json(path)
        return "architecture" in values and "model_type" not in values

    @classmethod
    def build(cls, config: Any, source: Source, *, load_weights: bool, preprocess: ImagePreprocess | None) -> TimmImageEncoder:
        """See `ImageEncoder.build`.

        Raises:
            NameGrammarError: If timm knows no model of that name.
            ReleaseError: If a folder does not say how pictures are prepared.
        """
        wanted = config.pretrained and load_weights
        options: dict[str, Any] = {"drop_path_rate": config.drop_path} if config.drop_path else {}
        if config.patch_dropout is not None:
            options["patch_drop_rate"] = config.patch_dropout
        if source.folder is None:
            name, options = source.name.rest, options | (_hub_file(config.name, source.name.rest) if wanted else {})
        else:
            name = f"local-dir:{(source.with_weights(_WEIGHTS) if wanted else source).files()}"
            if preprocess is None:
                _check_stated(config.name, read_json(source.files() / "config.json"))
        trunk = _create(config.name, name, wanted, options)
        _resize(config, trunk)
        return cls(config, trunk, preprocess or _preprocess_of(trunk, config.name, config.image_size))

    def tokens(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 -> token features (B, V, token_width)."""
        return self.tokens_of(self.normalise(pixels))

    def tokens_of(self, images: Tensor, layer: int | None = None) -> Tensor:
        """See `ImageEncoder.tokens_of`; of networks without blocks of one width, their output alone."""
        if layer is None:
            return grid_to_tokens(self.trunk, self.trunk.forward_features(images))
        return layer_tokens(self.trunk, images, layer, self.config.name)

    def pooled(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 -> (B, D), pooled as the checkpoint's own classifier would."""
        return self.trunk.forward_head(self.trunk.forward_features(self.normalise(pixels)), pre_logits=True)

    def cuts(self) -> list[str]:
        """Before each block of plain vision transformers, EfficientNets and MobileNetV3s; else the output alone."""
        return [*block_cuts(self.trunk), OUTPUT]

    def _below(self, images: Tensor, cut: str) -> Tensor:
        return below_block(self.trunk, images, block_number(cut))

    def _above(self, hidden: Tensor, cut: str) -> Tensor:
        return above_block(self.trunk, hidden, block_number(cut))

    def _lies_below(self, parameter: str, cut: str) -> bool:
        return parameter_below_block(parameter.removeprefix("trunk."), block_number(cut))

    @cached_property
    def _layers(self) -> dict[str, int]:
        return trunk_layers(self.trunk)

    @property
    def num_layers(self) -> int:
        """Timm's own grouping of the network."""
        return max(self._layers.values()) + 1

    def layer_of(self, parameter: str) -> int:
        """See `ImageEncoder.layer_of`."""
        return self._layers[parameter.removeprefix("trunk.")]

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """See `ImageEncoder.set_grad_checkpointing`."""
        checkpoint_trunk(self.trunk, self.config.name, enable)

    def save_processor(self, folder: Path) -> None:
        """Writes the network's shape in timm's own layout."""
        from timm.models._hub import save_config_for_hf

        save_config_for_hf(self.trunk, str(folder / "config.json"))


def grid_to_tokens(trunk: nn.Module, features: Tensor) -> Tensor:
    """Features of any layout timm gives -> (B, V, D), row by row of the picture."""
    if features.ndim == 4 and getattr(trunk, "output_fmt", "NCHW") == "NHWC":  # Swin and others keep channels last
        return features.flatten(1, 2)
    return features.flatten(2).transpose(1, 2) if features.ndim == 4 else features


def layer_tokens(trunk: Any, images: Tensor, layer: int, shown: str) -> Tensor:
    """What one block of a plain transformer of timm gives, prefix tokens in front.

    Args:
        trunk: The network.
        images: Normalised pictures (B, 3, H, W).
        layer: As transformers numbers hidden states; 0, what enters the first block, cannot be had.
        shown: What messages call the network.

    Raises:
        AssemblyError: If it has no such blocks, or not so many.
    """
    blocks = len(getattr(trunk, "blocks", ()))
    number = layer + blocks if layer < 0 else layer - 1  # of the block whose output is meant
    takes = "return_prefix_tokens" in inspect.signature(getattr(trunk, "forward_intermediates", len)).parameters
    if not takes or not 0 <= number < blocks:
        allowed = f"it has layers 1 to {blocks}, or -1 to {-blocks}" if takes else "it is no plain transformer; leave it out"
        raise AssemblyError(f"{shown}: feature_layer {layer}: {allowed}")
    found = trunk.forward_intermediates(
        images, indices=[number], return_prefix_tokens=True, norm=False, output_fmt="NLC", intermediates_only=True
    )[0]
    tokens, prefix = found if isinstance(found, tuple) else (found, None)
    return tokens if prefix is None else torch.cat([prefix, tokens], dim=1)


def trunk_layers(trunk: Any) -> dict[str, int]:
    """Layer of every parameter of a timm network, by its own grouping (stem, blocks one by one, norm)."""
    from timm.models._manipulate import group_parameters

    return dict(group_parameters(trunk, trunk.group_matcher(coarse=False), reverse=True))


def checkpoint_trunk(trunk: Any, name: str, enable: bool) -> None:
    """Turns timm's recomputation of activations on or off.

    Raises:
        AssemblyError: If the network has none.
    """
    try:
        trunk.set_grad_checkpointing(enable)
    except (AttributeError, AssertionError, NotImplementedError):
        raise AssemblyError(f"image encoder {name} cannot recompute activations (gradient checkpointing); turn it off") from None


def _create(shown: str, name: str, pretrained: bool, options: dict[str, Any]) -> Any:
    for file in Path(name.removeprefix("local-dir:")).glob("*.safetensors") if name.startswith("local-dir:") else ():
        check_safetensors(file)
    try:
        return timm.create_model(name, pretrained=pretrained, num_classes=0, **options)
    except TypeError as error:
        raise AssemblyError(f"{shown}: this network takes no such setting ({error})") from None
    except ValueError as error:
        raise NameGrammarError(f"{shown}: timm cannot build it ({_first_line(error)}); modalign zoo list names models") from error
    except (RuntimeError, OSError, SafetensorError, pickle.UnpicklingError) as error:
        if "Unknown model" in str(error):
            known = nearest(name, timm.list_models())
            raise NameGrammarError(f"{shown}: timm knows no model of that name{known}") from None
        raise ReleaseError(f"{shown}: its weights cannot be loaded ({_first_line(error)}); get the folder again") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _hub_file(shown: str, name: str) -> dict[str, Any]:
    """Where timm's hub repository keeps the weights, fetched with our patience instead of its own."""
    from ...checkpoints.hub import fetch_first

    cfg = timm.get_pretrained_cfg(name, allow_unregistered=True) if timm.is_model(name) else None
    if cfg is None:
        return {}
    if not cfg.has_weights:
        tags = ", ".join(timm.list_pretrained(f"{name.split('.')[0]}*")[:5])
        raise NameGrammarError(
            f"{shown}: timm has no weights for it{f' (it has {tags})' if tags else ''}; pretrained: false starts from random ones"
        )
    if not cfg.hf_hub_id or cfg.custom_load == "hf" or cfg.hf_hub_filename:
        return {}
    folder = fetch_first(str(cfg.hf_hub_id).split("@")[0], _WEIGHTS)
    file = next((folder / names[0] for names in _WEIGHTS if (folder / names[0]).is_file()), None)
    if file is None:
        raise ReleaseError(f"{shown}: the copy of {cfg.hf_hub_id} in the cache has no weights, and the hub cannot be reached")
    return {"pretrained_cfg_overlay": {"file": str(file), "custom_load": False}}


def _resize(config: Any, trunk: Any) -> None:
    """Lets a network with a fixed grid take the wanted size: its position table is resampled as timm does."""
    if config.image_size is not None and hasattr(trunk, "set_input_size"):
        try:
            trunk.set_input_size(img_size=(config.image_size, config.image_size))
        except (RuntimeError, ValueError, AssertionError) as error:  # smaller than a patch, or than a window
            raise AssemblyError(
                f"{config.name}: image_size: {config.image_size} pixels do not go with this network ({_first_line(error)})"
            ) from None


def _check_stated(shown: str, values: dict[str, Any]) -> None:
    stated = values.get("pretrained_cfg", values)
    absent = [key for key in ("input_size", "mean", "std", "interpolation") if not stated.get(key)]
    if absent:
        raise ReleaseError(
            f"{shown}: config.json does not say how pictures are prepared ({', '.join(absent)} under pretrained_cfg); "
            "add what the weights were trained with"
        )


def _preprocess_of(trunk: nn.Module, shown: str, image_size: int | None) -> ImagePreprocess:
    cfg = timm.data.resolve_data_config({}, model=trunk)
    height, width = cfg["input_size"][-2:]
    if height != width and image_size is None:
        raise AssemblyError(f"{shown}: takes {width} x {height} pixels; only square inputs can be prepared here, give image_size")
    if cfg["interpolation"] not in INTERPOLATIONS:
        raise AssemblyError(f"{shown}: resizes by {cfg['interpolation']!r}, which is none of {', '.join(INTERPOLATIONS)}")
    mean = tuple(cfg["mean"])
    mode: Any = _RESIZE[cfg["crop_mode"]]
    red, green, blue = (round(255 * channel) for channel in mean) if mode == "longest" else (0, 0, 0)
    # a size of the user's own keeps the whole picture: the checkpoint's crop share belongs to the checkpoint's size
    crop = 1.0 if image_size else cfg["crop_pct"]
    size = image_size or height
    return ImagePreprocess(size, mean, tuple(cfg["std"]), cfg["interpolation"], crop, mode, fill=(red, green, blue))
