"""Image towers of open_clip: its vision transformers, its ResNets, and timm networks with its heads, whole with their projection."""

from __future__ import annotations

import copy
import json
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from torch import Tensor, nn

from ...checkpoints.open_clip import CONFIG, OpenClipCheckpoint, is_open_clip_folder
from ...checkpoints.weights import load_strictly
from ...errors import AssemblyError, ReleaseError
from ..layers import Depths
from ..open_clip_source import checkpoint_of, preprocess_of, to_preprocess_cfg
from ..projection import MatrixProjection
from ..sources import Source
from .base import OUTPUT, ImageEncoder
from .preprocess import ImagePreprocess
from .timm import checkpoint_trunk, grid_to_tokens, layer_tokens, trunk_layers
from .timm_cuts import (
    above_block,
    below_block,
    block_cuts,
    block_number,
    checkpointed,
    parameter_below_block,
    run_blocks,
)


class OpenClipImageEncoder(ImageEncoder):
    """An image tower of open_clip; its pooled vector lies in the checkpoint's joint space, until its projection is split off.

    Attributes:
        model_cfg: embed_dim, vision_cfg and quick_gelu, as open_clip writes them.
    """

    def __init__(self, config: Any, model: Any, model_cfg: dict[str, Any], preprocess: ImagePreprocess) -> None:
        """Wraps a tower; `build` makes one from a name.

        Args:
            config: An `ImageEncoderConfig`.
            model: open_clip's `VisionTransformer`, `ModifiedResNet` or `TimmModel`.
            model_cfg: What it was built from.
            preprocess: What turns pictures into its input.
        """
        super().__init__(config, preprocess)
        self.model = model
        self.model_cfg = model_cfg
        self.tower = _kind(model)
        self.width = int(model_cfg["embed_dim"])
        self.token_width = _token_width(model)
        self.prefix_tokens = _prefix_tokens(model, self.tower)

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        """open_clip's own description, with an image tower."""
        from ..sources import read_json

        return is_open_clip_folder(folder) and "vision_cfg" in read_json(folder / CONFIG).get("model_cfg", {})

    @classmethod
    def build(
        cls, config: Any, source: Source, *, load_weights: bool, preprocess: ImagePreprocess | None
    ) -> OpenClipImageEncoder:
        """See `ImageEncoder.build`.

        Raises:
            AssemblyError: If a setting does not go with the tower.
            ReleaseError: If weights and description do not fit each other.
        """
        from .build import refuse_settings

        refuse_settings(config, "an open_clip tower", pooling=None)
        checkpoint = checkpoint_of(source, config.name, weights=config.pretrained and load_weights)
        model_cfg = _model_cfg(config, checkpoint)
        model = build_visual(model_cfg)
        prepared = preprocess or preprocess_of(checkpoint, _input_size(config, model_cfg), config.image_size)
        if checkpoint.weights is not None:
            load_visual(model, checkpoint, resize=config.image_size is not None)
        if config.image_size is not None and hasattr(model, "set_input_size"):
            model.set_input_size(config.image_size)  # timm networks with a fixed grid
        return cls(config, model, model_cfg, prepared)

    def tokens(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 -> token features (B, V, token_width), before pooling; class tokens among them."""
        return self.tokens_of(self.normalise(pixels))

    def tokens_of(self, images: Tensor, layer: int | None = None) -> Tensor:
        """See `ImageEncoder.tokens_of`; of ResNets their output alone."""
        if layer is not None:
            return self._layer(images, layer)
        if self.tower == "timm":
            return grid_to_tokens(self.model.trunk, self.model.trunk.forward_features(images))
        if self.tower == "resnet":
            return _resnet_grid(self.model, images).flatten(2).transpose(1, 2)
        hidden = self._blocks(self.model._embeds(images), 0)
        plain = self.model.attn_pool is None and not self.model.final_ln_after_pool
        return self.model.ln_post(hidden) if plain else hidden

    def _layer(self, images: Tensor, layer: int) -> Tensor:
        if self.tower == "timm":
            return layer_tokens(self.model.trunk, images, layer, self.config.name)
        blocks = len(self.model.transformer.resblocks) if self.tower == "vit" else 0
        number = layer + blocks + 1 if layer < 0 else layer  # of hidden states: 0 is what enters the first block
        if not 0 <= number <= blocks or not blocks:
            raise AssemblyError(f"{self.config.name}: feature_layer {layer}: there are {blocks} blocks to count; leave it out")
        return self._blocks(self.model._embeds(images), 0, number)

    def pooled(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 -> (B, D), through the tower's own projection unless that was split off."""
        return self.pooled_and_tokens(pixels)[0]

    def pooled_and_tokens(self, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        """The pooled vectors and, of towers that give them (CoCa's), the tokens a text decoder attends to."""
        out = self.model(self.normalise(pixels))
        return out if isinstance(out, tuple) else (out, None)

    def cuts(self) -> list[str]:
        """Before each block, and the output; ResNets the output alone."""
        if self.tower == "vit":
            return [*(f"blocks.{i}" for i in range(len(self.model.transformer.resblocks))), OUTPUT]
        return [*(block_cuts(self.model.trunk) if self.tower == "timm" else ()), OUTPUT]

    def _below(self, images: Tensor, cut: str) -> Tensor:
        if self.tower == "timm":
            return below_block(self.model.trunk, images, block_number(cut))
        return self._blocks(self.model._embeds(images), 0, block_number(cut))

    def _above(self, hidden: Tensor, cut: str) -> Tensor:
        if self.tower == "timm":
            return self.model.head(above_block(self.model.trunk, hidden, block_number(cut), pre_logits=False))
        pooled = self.model._pool(self._blocks(hidden, block_number(cut)))[0]
        return pooled if self.model.proj is None else pooled @ self.model.proj

    def _blocks(self, hidden: Tensor, start: int, stop: int | None = None) -> Tensor:
        transformer = self.model.transformer
        return run_blocks(transformer.resblocks[start:stop], hidden, checkpointed(transformer))

    def _lies_below(self, parameter: str, cut: str) -> bool:
        path = parameter.removeprefix("model.")
        if self.tower == "timm":
            return path.startswith("trunk.") and parameter_below_block(path.removeprefix("trunk."), block_number(cut))
        if path.startswith("transformer.resblocks."):
            return int(path.split(".")[2]) < block_number(cut)
        return path.startswith(("conv1.", "class_embedding", "positional_embedding", "ln_pre."))

    def split_projection(self) -> nn.Module | None:
        """See `ImageEncoder.split_projection`; ResNets and timm's attention pools end in one that cannot be told from the pool."""
        if self.tower == "vit" and self.model.proj is not None:
            matrix = MatrixProjection(self.model.proj)
            self.model.proj, self.width = None, matrix.width_in
            projection: nn.Module = matrix
        elif (
            self.tower == "timm"
            and {"proj", "mlp"} & {name for name, _ in self.model.head.named_children()}
            and _plain(self.model)
        ):
            projection, self.model.head = self.model.head, nn.Sequential()
            self.width = int(self.model.trunk.num_features)
        else:
            return None
        self.__dict__.pop("_layers", None)
        return projection

    @cached_property
    def _layers(self) -> tuple[dict[str, int], int]:
        names = [name for name, _ in self.model.named_parameters()]
        if self.tower == "timm":
            trunk = {f"trunk.{name}": layer for name, layer in trunk_layers(self.model.trunk).items()}
            last = max(trunk.values()) + 1
            layers = {name: trunk.get(name, last) for name in names}
            return layers, max(layers.values()) + 1
        blocks = [f"layer{i}" for i in (1, 2, 3, 4)] if self.tower == "resnet" else None
        depths = Depths(self.model, blocks)
        return {name: depths[name] for name in names}, depths.count

    @property
    def num_layers(self) -> int:
        """See `ImageEncoder.num_layers`."""
        return self._layers[1]

    def layer_of(self, parameter: str) -> int:
        """See `ImageEncoder.layer_of`."""
        return self._layers[0][parameter.removeprefix("model.")]

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """See `ImageEncoder.set_grad_checkpointing`."""
        if self.tower == "resnet":
            super().set_grad_checkpointing(enable)
        elif self.tower == "timm":
            checkpoint_trunk(self.model.trunk, self.config.name, enable)
        else:
            self.model.set_grad_checkpointing(enable)

    def save_processor(self, folder: Path) -> None:
        """Writes the tower's description in open_clip's own layout."""
        values = {"model_cfg": self.model_cfg, "preprocess_cfg": _stated(self.preprocess)}
        (folder / CONFIG).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def build_visual(model_cfg: dict[str, Any]) -> Any:
    """open_clip's image tower with random weights.

    Raises:
        ReleaseError: If open_clip cannot build it.
    """
    from open_clip.model import CLIPVisionCfg, _build_vision_tower

    vision_cfg = {**model_cfg["vision_cfg"], "timm_model_pretrained": False}
    try:
        return _build_vision_tower(model_cfg["embed_dim"], CLIPVisionCfg(**vision_cfg), bool(model_cfg.get("quick_gelu", False)))
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        raise ReleaseError(f"open_clip cannot build an image tower from vision_cfg ({error})") from error


def load_visual(model: nn.Module, checkpoint: OpenClipCheckpoint, *, resize: bool) -> None:
    """Fills a tower with a checkpoint's weights, every tensor or none.

    Args:
        model: The tower.
        checkpoint: The checkpoint.
        resize: Whether the position table may be resampled to the tower's grid.

    Raises:
        ReleaseError: Naming what does not fit.
    """
    from open_clip.model import resize_pos_embed

    state = checkpoint.part("image")
    if resize:
        named = {f"visual.{name}": tensor for name, tensor in state.items()}
        resize_pos_embed(named, SimpleNamespace(visual=model))
        state = {name.removeprefix("visual."): tensor for name, tensor in named.items()}
    load_strictly(model, state, f"{checkpoint.name}: image tower")


def _model_cfg(config: Any, checkpoint: OpenClipCheckpoint) -> dict[str, Any]:
    cfg = {
        "embed_dim": int(checkpoint.model_cfg["embed_dim"]),
        "vision_cfg": copy.deepcopy(checkpoint.model_cfg["vision_cfg"]),
        "quick_gelu": bool(checkpoint.model_cfg.get("quick_gelu", False)),
    }
    if config.drop_path and not cfg["vision_cfg"].get("timm_model_name"):
        raise AssemblyError(
            f"{config.name}: drop_path: {config.drop_path!r} has no meaning for open_clip's own towers; leave it out"
        )
    if config.drop_path:
        cfg["vision_cfg"]["timm_drop_path"] = config.drop_path
    if config.patch_dropout is not None:
        cfg["vision_cfg"]["patch_dropout"] = config.patch_dropout
    if config.image_size is not None:
        cfg["vision_cfg"]["image_size"] = config.image_size
    return cfg


def _input_size(config: Any, model_cfg: dict[str, Any]) -> int:
    size = model_cfg["vision_cfg"].get("image_size", 224)
    sides = set(size) if isinstance(size, list | tuple) else {size}
    if len(sides) != 1:
        raise AssemblyError(
            f"{config.name}: its image tower takes {size} pixels; only square inputs can be prepared here, give image_size"
        )
    return int(sides.pop())


def _kind(model: nn.Module) -> str:
    return {"TimmModel": "timm", "ModifiedResNet": "resnet"}.get(type(model).__name__, "vit")


def _token_width(model: Any) -> int:
    if _kind(model) == "timm":
        return int(model.trunk.num_features)
    return int(model.attnpool.positional_embedding.shape[1] if _kind(model) == "resnet" else model.transformer.width)


def _plain(model: Any) -> bool:
    """Whether a timm tower's head is its projection alone."""
    return "pool" not in {name for name, _ in model.head.named_children()}


def _resnet_grid(model: Any, images: Tensor) -> Tensor:
    hidden = model.stem(images)
    for number in (1, 2, 3, 4):
        hidden = getattr(model, f"layer{number}")(hidden)
    return hidden


def _stated(preprocess: ImagePreprocess) -> dict[str, Any]:
    """For readers of the file; a release keeps the preprocessing that counts in its own config."""
    try:
        return to_preprocess_cfg(preprocess)
    except ReleaseError:
        return {"mean": list(preprocess.mean), "std": list(preprocess.std)}


def _prefix_tokens(model: Any, tower: str) -> int:
    """open_clip's own vision transformers have one class token; a ResNet's grid has none in front."""
    if tower == "timm":
        return int(getattr(model.trunk, "num_prefix_tokens", 0) or 0)
    return int(tower == "vit")
