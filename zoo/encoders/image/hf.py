"""Image encoders from transformers: ViT, DINOv2, SigLIP's and CLIP's vision towers, ConvNeXt and whatever else takes pixels alone."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import AssemblyError, ReleaseError
from ..hf_loading import checkpoint_body, load_checked
from ..layers import Depths
from ..sources import Source, read_json
from .base import ImageEncoder
from .hf_preprocess import preprocess_of
from .preprocess import ImagePreprocess

_WEIGHTS = (("model*.safetensors",), ("pytorch_model*.bin",))


class HuggingFaceImageEncoder(ImageEncoder):
    """A transformers vision model; of a model with several towers, its vision tower.

    The pooled vector is the model's own where its weights make one (SigLIP's attention pooling, CLIP's and DINOv2's normed class token,
    the mean of convolutional networks), else the class token, else the mean over tokens. ViT's `pooler`, a layer most checkpoints do
    not have, is left out.
    """

    def __init__(self, config: Any, model: Any, preprocess: ImagePreprocess, interpolate: bool) -> None:
        """Wraps a model; `build` makes one from a name.

        Args:
            config: An `ImageEncoderConfig`.
            model: A vision model of transformers.
            preprocess: What turns pictures into its input.
            interpolate: Resample its position table to the size of the input.

        Raises:
            AssemblyError: If `pooling` is unknown.
        """
        super().__init__(config, preprocess)
        self.model = model
        self._options = {"interpolate_pos_encoding": True} if interpolate else {}
        if config.pooling not in (None, "cls", "mean"):
            raise AssemblyError(f"{config.name}: pooling: {config.pooling!r} is neither cls nor mean")
        self._token_pooling = config.pooling or ("cls" if _has_class_token(model) else "mean")
        self.width = self.token_width = _width(self.model.config)
        self.prefix_tokens = _prefix_tokens(model)

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        """Transformers' config.json with a model type that takes pictures."""
        path = folder / "config.json"
        return path.is_file() and "model_type" in read_json(path) and _vision_config(folder) is not None

    @classmethod
    def build(
        cls, config: Any, source: Source, *, load_weights: bool, preprocess: ImagePreprocess | None
    ) -> HuggingFaceImageEncoder:
        """See `ImageEncoder.build`.

        Raises:
            AssemblyError: If a setting does not go with the model.
            ReleaseError: If weights are missing, or preprocessing is not stated or cannot be followed.
        """
        from .build import refuse_settings

        refuse_settings(config, "a transformers model", drop_path=0.0, patch_dropout=None)
        wanted = config.pretrained and load_weights
        folder = (source.with_weights(_WEIGHTS) if wanted else source).files()
        vision = _vision_config(folder)
        if vision is None:
            raise ReleaseError(f"{config.name}: config.json is of no vision model that transformers has")
        model = _pretrained(folder, vision, config.name) if wanted else _from_config(vision)
        prepared = preprocess or preprocess_of(folder, config.name, config.image_size)
        return cls(config, model.eval(), prepared, _must_interpolate(config, model, prepared.size))

    def _states(self, pixels: Tensor) -> Any:
        return self.model(pixel_values=self.normalise(pixels), **self._options)

    def tokens(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 -> (B, V, D), the class token among them where there is one."""
        return self.tokens_of(self.normalise(pixels))

    def tokens_of(self, images: Tensor, layer: int | None = None) -> Tensor:
        """See `ImageEncoder.tokens_of`."""
        if layer is None:
            return _flat(self.model(pixel_values=images, **self._options).last_hidden_state)
        return self.layers_of(images, [layer])[0]

    def layers_of(self, images: Tensor, layers: Sequence[int | None]) -> list[Tensor]:
        """See `ImageEncoder.layers_of`: one pass gives all."""
        found = self.model(pixel_values=images, output_hidden_states=True, **self._options)
        states = found.hidden_states
        for layer in layers:
            if layer is not None and not -len(states) <= layer < len(states):
                raise AssemblyError(
                    f"{self.config.name}: there is no layer {layer}; it has {len(states)} hidden states, 0 to {len(states) - 1} or "
                    "-1 back"
                )
        return [_flat(found.last_hidden_state if layer is None else states[layer]) for layer in layers]

    def pooled(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 -> (B, D)."""
        states = self._states(pixels)
        own = getattr(states, "pooler_output", None)
        if self.config.pooling is None and own is not None:
            return own.flatten(1)
        tokens = _flat(states.last_hidden_state)
        return tokens[:, 0] if self._token_pooling == "cls" else tokens.mean(1)

    @cached_property
    def _depths(self) -> Depths:
        return Depths(self.model)

    @property
    def num_layers(self) -> int:
        """See `ImageEncoder.num_layers`."""
        return self._depths.count

    def layer_of(self, parameter: str) -> int:
        """See `ImageEncoder.layer_of`."""
        return self._depths[parameter.removeprefix("model.")]

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """See `ImageEncoder.set_grad_checkpointing`."""
        checkpoint_body(self.model, f"image encoder {self.config.name}", enable)

    def save_processor(self, folder: Path) -> None:
        """Writes the model's configuration; preprocessing is in the release's own config."""
        self.model.config.save_pretrained(folder)


def _vision_config(folder: Path) -> Any | None:
    """The configuration of a folder's vision model or vision tower; None if it takes no pictures."""
    from transformers import MODEL_MAPPING, AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (ValueError, KeyError):
        return None
    vision = getattr(config, "vision_config", None) or config
    if type(vision) not in MODEL_MAPPING:
        return None
    model_class: Any = MODEL_MAPPING[type(vision)]
    return vision if model_class.main_input_name == "pixel_values" else None


def _without_pooler(vision: Any) -> dict[str, bool]:
    """Leaves out a pooling layer that is a dense layer of its own: most checkpoints do not have its weights."""
    from transformers import MODEL_MAPPING

    model_class: Any = MODEL_MAPPING[type(vision)]
    if "add_pooling_layer" not in inspect.signature(model_class).parameters:
        return {}
    with torch.device("meta"):
        pooler = getattr(model_class(vision), "pooler", None)
    return {"add_pooling_layer": False} if hasattr(pooler, "dense") else {}


def _from_config(vision: Any) -> Any:
    from transformers import AutoModel

    return AutoModel.from_config(vision, dtype=torch.float32, trust_remote_code=False, **_without_pooler(vision))


def _pretrained(folder: Path, vision: Any, shown: str) -> Any:
    from transformers import AutoModel

    settings = {"config": vision, **_without_pooler(vision)}
    return load_checked(AutoModel, folder, shown, settings)


def _has_class_token(model: Any) -> bool:
    return any(name.rsplit(".", 1)[-1] in ("cls_token", "class_embedding") for name, _ in model.named_parameters())


def _prefix_tokens(model: Any) -> int:
    """A class token, DeiT's second one, and registers."""
    distilled = any(name.rsplit(".", 1)[-1] == "distillation_token" for name, _ in model.named_parameters())
    return int(_has_class_token(model)) + int(distilled) + int(getattr(model.config, "num_register_tokens", 0) or 0)


def _must_interpolate(config: Any, model: Any, size: int) -> bool:
    """Whether the position table must be resampled, which is done for a size of the user's own only."""
    expects = getattr(model.config, "image_size", None)
    takes = "interpolate_pos_encoding" in inspect.signature(model.forward).parameters
    if not isinstance(expects, int) or expects == size or _any_size(model):
        return False
    if not takes or config.image_size is None:
        raise AssemblyError(
            f"{config.name}: the network takes {expects} pixels, its preprocessing gives {size}; "
            + ("give image_size to resample its positions" if takes else f"give image_size: {expects}")
        )
    return True


def _any_size(model: Any) -> bool:
    """Whether a model resamples positions by itself, or has none."""
    return type(model).__name__.startswith("Dinov") or not any("position" in name for name, _ in model.named_parameters())


def _width(config: Any) -> int:
    if getattr(config, "hidden_size", None):
        return int(config.hidden_size)
    return int(config.hidden_sizes[-1])


def _flat(states: Tensor) -> Tensor:
    return states.flatten(2).transpose(1, 2) if states.ndim == 4 else states
