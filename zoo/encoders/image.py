"""Image encoders from timm: any of its models by name, a local folder in its layout, or an asset.

An encoder can be cut between two of its blocks: what lies below the cut is computed once and cached, what lies above trains.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from ..errors import AssemblyError, NameGrammarError, nearest
from ..names import local_folder, parse_name
from .preprocess import ImagePreprocess

OUTPUT = "output"


@dataclass
class ImageEncoderConfig:
    """Settings of a timm image encoder.

    Attributes:
        name: `timm:NAME`, `asset:NAME`, `hf:ORG/NAME` (timm weights on the hub) or a local timm folder.
        image_size: Side of the input; default the checkpoint's own.
        pretrained: Load the checkpoint's weights; False starts from random ones.
        drop_path: Stochastic depth rate while training.
    """

    name: str = "timm:vit_small_patch16_224"
    image_size: int | None = None
    pretrained: bool = True
    drop_path: float = 0.0


class ImageEncoder(nn.Module):
    """A timm model without its classifier.

    Attributes:
        width: D of the pooled features.
        preprocess: What turns pictures into its input; saved with it.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        config: ImageEncoderConfig,
        *,
        load_weights: bool = True,
        preprocess: dict[str, Any] | None = None,
        folder: Path | None = None,
    ) -> None:
        """Builds the encoder.

        Args:
            config: Its settings.
            load_weights: False builds the shape only, for weights that come from a release.
            preprocess: Saved preprocessing that overrides the checkpoint's.
            folder: A release's folder to take the network's shape from instead of the name (see `save_processor`).

        Raises:
            NameGrammarError: If the name is wrong or the model unknown.
        """
        super().__init__()
        self.config = config
        name = f"local-dir:{folder}" if folder else _timm_name(config)
        options: dict[str, Any] = {"drop_path_rate": config.drop_path} if config.drop_path else {}
        try:
            self.trunk: Any = timm.create_model(name, pretrained=config.pretrained and load_weights, num_classes=0, **options)
        except RuntimeError as error:
            if "Unknown model" in str(error):
                known = nearest(name, timm.list_models())
                raise NameGrammarError(f"{config.name}: timm knows no model of that name{known}") from None
            raise
        trunk: Any = self.trunk
        self.width = int(getattr(trunk, "head_hidden_size", None) or trunk.num_features)
        self.preprocess = ImagePreprocess.from_dict(preprocess) if preprocess else _preprocess_of(self.trunk, config.image_size)
        self.register_buffer("mean", 255 * torch.tensor(self.preprocess.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(self.preprocess.std).view(1, 3, 1, 1), persistent=False)

    def normalise(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 -> float in the scale the weights were trained with."""
        return (pixels.to(self.mean.dtype) - self.mean) / self.std

    def forward(self, pixels: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) uint8 -> token features (B, V, D) and their mask (B, V), all True; `mask` is not used by square inputs."""
        features = self.trunk.forward_features(self.normalise(pixels))
        if features.ndim == 4 and getattr(self.trunk, "output_fmt", "NCHW") == "NHWC":  # Swin and others keep channels last
            features = features.flatten(1, 2)
        elif features.ndim == 4:
            features = features.flatten(2).transpose(1, 2)
        return features, torch.ones(features.shape[:2], dtype=torch.bool, device=features.device)

    def num_tokens(self, input_shape: tuple[int, int]) -> int:
        """V for an input of (H, W) pixels, found by one pass over a blank picture."""
        device = next(self.parameters()).device
        with torch.no_grad():
            return self(torch.zeros(1, 3, *input_shape, dtype=torch.uint8, device=device))[0].shape[1]

    def pooled(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 -> (B, D), pooled as the checkpoint's own classifier would."""
        return self.trunk.forward_head(self.trunk.forward_features(self.normalise(pixels)), pre_logits=True)

    def below(self, pixels: Tensor, cut: str) -> Tensor:
        """What enters the cut: (B, 3, H, W) uint8 -> features. The cut `output` is the pooled output itself.

        Raises:
            AssemblyError: If the encoder cannot be cut there.
        """
        if cut == OUTPUT:
            return self.pooled(pixels)
        start = self._block(cut)
        hidden = self._stem(self.normalise(pixels))
        return _run(self.trunk.blocks[:start], hidden)

    def above(self, hidden: Tensor, cut: str) -> Tensor:
        """From what enters the cut to the pooled output (B, D)."""
        if cut == OUTPUT:
            return hidden
        start = self._block(cut)
        hidden = _run(self.trunk.blocks[start:], hidden.to(self.mean.dtype))
        return self.trunk.forward_head(self._tail(hidden), pre_logits=True)

    def lies_below(self, parameter: str, cut: str) -> bool:
        """Whether a parameter (named as in `named_parameters`) works below the cut."""
        if cut == OUTPUT:
            return True
        start, path = self._block(cut), parameter.removeprefix("trunk.")
        if path.startswith("blocks."):
            return int(path.split(".")[1]) < start
        if path.startswith("norm_pre."):  # before the blocks, unlike every other norm
            return True
        return not path.startswith(("conv_head", "bn2", "norm", "fc_norm", "attn_pool", "head"))

    def save_processor(self, folder: Path) -> None:
        """Writes the network's shape in timm's own layout, so that a release is built without the source it started from."""
        from timm.models._hub import save_config_for_hf

        save_config_for_hf(self.trunk, str(folder / "config.json"))

    def cuts(self) -> list[str]:
        """The places it can be cut at."""
        blocks = getattr(self.trunk, "blocks", None)
        kind = type(self.trunk).__name__
        if not isinstance(blocks, nn.Sequential) or kind not in ("EfficientNet", "MobileNetV3", "VisionTransformer"):
            return [OUTPUT]
        return [f"blocks.{i}" for i in range(len(blocks))] + [OUTPUT]

    def _block(self, cut: str) -> int:
        if cut not in self.cuts():
            raise AssemblyError(f"image encoder {self.config.name} cannot be cut at {cut!r}{nearest(cut, self.cuts())}")
        return int(cut.removeprefix("blocks."))

    def _stem(self, images: Tensor) -> Tensor:
        trunk = self.trunk
        if hasattr(trunk, "patch_embed"):  # VisionTransformer
            return trunk.norm_pre(trunk.patch_drop(trunk._pos_embed(trunk.patch_embed(images))))
        return trunk.bn1(trunk.conv_stem(images))

    def _tail(self, hidden: Tensor) -> Tensor:
        trunk = self.trunk
        if hasattr(trunk, "patch_embed"):
            return trunk.norm(hidden)
        if hasattr(trunk, "bn2"):  # EfficientNet; MobileNetV3 has its last convolution in the head
            return trunk.bn2(trunk.conv_head(hidden))
        return hidden


def _run(blocks: Iterable[nn.Module], hidden: Tensor) -> Tensor:
    for block in blocks:
        hidden = block(hidden)
    return hidden


def _timm_name(config: ImageEncoderConfig) -> str:
    name = parse_name(config.name)
    if name.scheme == "timm":
        return name.rest
    if name.scheme == "hf":
        return f"hf-hub:{name.rest}"
    folder = local_folder(name)
    if folder is None:
        raise NameGrammarError(f"{config.name}: an image encoder is timm:NAME, asset:NAME, hf:ORG/NAME or a folder")
    if not (folder / "config.json").exists():
        raise NameGrammarError(
            f"{config.name}: {folder.name} has no config.json; a timm folder holds config.json and model.safetensors"
        )
    return f"local-dir:{folder}"


def _preprocess_of(trunk: nn.Module, image_size: int | None) -> ImagePreprocess:
    cfg = timm.data.resolve_data_config({}, model=trunk)
    size = image_size or cfg["input_size"][-1]
    # a size of the user's own keeps the whole picture: the checkpoint's crop share belongs to the checkpoint's size
    crop = 1.0 if image_size else cfg["crop_pct"]
    return ImagePreprocess(size, tuple(cfg["mean"]), tuple(cfg["std"]), cfg["interpolation"], crop)
