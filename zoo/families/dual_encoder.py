"""What CLIP-like families share: two encoders, two projectors, one joint space of unit vectors and a learned scale."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from ..configure import fill
from ..encoders.clip_text import ClipTextConfig, ClipTextTower
from ..encoders.image import ImageEncoder, ImageEncoderConfig
from ..encoders.text import TextEncoder
from ..encoders.text_embedder import TextEmbedder, TextEmbedderConfig
from ..errors import AssemblyError, RecipeError
from ..projectors.base import Projector
from ..registry import PROJECTORS

MAX_LOG_SCALE = math.log(100.0)


@dataclass
class ProjectorConfig:
    """Which projector, and its settings.

    Attributes:
        name: A projector of `modalign zoo list`.
        options: Settings of its constructor, without the widths.
    """

    name: str = "linear"
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class DualEncoderConfig:
    """Settings of a dual encoder; give exactly one of `text_embedder` and `text_tower`.

    Attributes:
        image: The image encoder.
        text_embedder: A pretrained text embedder.
        text_tower: A CLIP text tower from scratch.
        image_projector: From image features to the joint space.
        text_projector: From text features to the joint space; None if the tower already ends there.
        embed_dim: D of the joint space.
        logit_scale_init: Natural log of the initial scale; CLIP's ln(1/0.07).
    """

    image: ImageEncoderConfig = field(default_factory=ImageEncoderConfig)
    text_embedder: TextEmbedderConfig | None = None
    text_tower: ClipTextConfig | None = None
    image_projector: ProjectorConfig | None = field(default_factory=ProjectorConfig)
    text_projector: ProjectorConfig | None = field(default_factory=ProjectorConfig)
    embed_dim: int = 512
    logit_scale_init: float = math.log(1 / 0.07)


class DualEncoder(nn.Module):
    """Two encoders whose projected, L2-normalised outputs live in one space.

    Roles of its parameters: `encoder` image encoder, `embedder` text encoder, `head` image projection, `projector` text projection,
    `aux` the logit scale.
    """

    family = "dual_encoder"
    Config: type = DualEncoderConfig
    #: part name -> parameter prefixes, for `init_from` of a stage
    parts: Mapping[str, tuple[str, ...]] = {
        "image": ("image.", "image_projector."),
        "text": ("text.", "text_projector."),
        "scale": ("logit_scale",),
    }
    _roles = {
        "image": "encoder",
        "text": "embedder",
        "image_projector": "head",
        "text_projector": "projector",
        "logit_scale": "aux",
    }

    def __init__(
        self, config: DualEncoderConfig, *, release: Path | None = None, preprocess: dict[str, Any] | None = None
    ) -> None:
        """Assembles the parts.

        Args:
            config: Settings.
            release: Folder of a release that supplies weights and processors; then no source is loaded.
            preprocess: The release's image preprocessing.

        Raises:
            AssemblyError: If widths do not fit.
            RecipeError: If not exactly one text encoder is given.
        """
        super().__init__()
        self.config = config
        shape = None if release is None or not (release / "image").is_dir() else release / "image"
        self.image = ImageEncoder(config.image, load_weights=release is None, preprocess=preprocess, folder=shape)
        self.text = _text_encoder(config, release)
        self.image_projector = _projector(config.image_projector, self.image.width, config.embed_dim, "image_projector")
        self.text_projector = _projector(config.text_projector, self.text.width, config.embed_dim, "text_projector")
        self.logit_scale = nn.Parameter(torch.tensor(float(config.logit_scale_init)))

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any], where: str = "model", **build: Any) -> DualEncoder:
        """Builds from plain values (a recipe's `model` or a release's config)."""
        return cls(fill(cls.Config, settings, where), **build)

    def role_of(self, parameter: str) -> str:
        """The one role of a parameter, by its name in `named_parameters`."""
        return self._roles[parameter.split(".")[0]]

    def forward(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Embeds whatever the batch holds.

        Args:
            batch: `image` (B, 3, H, W) uint8, or `image_features` with `image_cut`; `text_ids` and `text_mask` (N, T), or
                `text_features` (N, D_text); the same with `second_` in front for a second caption.

        Returns:
            `image_embedding` (B, D), `text_embedding` (N, D), `second_text_embedding` (N, D), each where there is input, as unit
            vectors, and `logit_scale`, exponentiated.
        """
        outputs = {"logit_scale": self.logit_scale.exp()}
        if "image_features" in batch:
            pooled = self.image.above(batch["image_features"], batch["image_cut"])
            outputs["image_embedding"] = self._project(self.image_projector, pooled)
        elif "image" in batch:
            outputs["image_embedding"] = self._project(self.image_projector, self.image.pooled(batch["image"]))
        for prefix in ("", "second_"):
            if f"{prefix}text_features" in batch:
                features = batch[f"{prefix}text_features"].float()
            elif f"{prefix}text_ids" in batch:
                features = self.text(batch[f"{prefix}text_ids"], batch[f"{prefix}text_mask"])
            else:
                continue
            outputs[f"{prefix}text_embedding"] = self._project(self.text_projector, features)
        return outputs

    @staticmethod
    def _project(projector: nn.Module, features: Tensor) -> Tensor:
        return F.normalize(projector(features).float(), dim=-1)

    def after_step(self) -> None:
        """Keeps the scale within [1, 100], as CLIP does after every optimiser step."""
        with torch.no_grad():
            self.logit_scale.clamp_(0.0, MAX_LOG_SCALE)

    @property
    def device(self) -> torch.device:
        """Where its parameters are."""
        return self.logit_scale.device

    @torch.inference_mode()
    def encode_image(self, images: Sequence[Image.Image], batch_size: int = 64) -> Tensor:
        """Pictures -> unit vectors (N, D), float32 on the CPU.

        Raises:
            AssemblyError: If given a single picture instead of a list.
        """
        if isinstance(images, Image.Image):
            raise AssemblyError("encode_image takes a list of pictures; write encode_image([picture])")
        self.eval()
        parts = [self.image_vectors(images[start : start + batch_size]) for start in range(0, len(images), batch_size)]
        return torch.cat(parts) if parts else torch.empty(0, self.config.embed_dim)

    def image_vectors(self, images: Sequence[Image.Image]) -> Tensor:
        """One batch of `encode_image`."""
        pixels = torch.stack([self.image.preprocess(image) for image in images]).to(self.device)
        return self._project(self.image_projector, self.image.pooled(pixels)).cpu()

    @torch.inference_mode()
    def encode_text(self, texts: Sequence[str], batch_size: int = 128) -> Tensor:
        """Strings -> unit vectors (N, D), float32 on the CPU.

        Raises:
            AssemblyError: If given a single string instead of a list.
        """
        if isinstance(texts, str):
            raise AssemblyError("encode_text takes a list of strings; write encode_text([text])")
        self.eval()
        return self.project_text(self.text.embed(texts, batch_size))

    @torch.inference_mode()
    def project_text(self, features: Tensor) -> Tensor:
        """Text features (N, D_text) -> unit vectors (N, D) on the CPU."""
        self.eval()
        return self._project(self.text_projector, features.to(self.device)).cpu()

    def settings(self) -> dict[str, Any]:
        """Everything `from_settings` needs, as plain values."""
        return asdict(self.config)

    def save_processors(self, folder: Path) -> None:
        """Writes what a release needs besides weights: both encoders' configuration and the text side's tokenizer."""
        for part, encoder in (("image", self.image), ("text", self.text)):
            (folder / part).mkdir()
            encoder.save_processor(folder / part)

    @classmethod
    def part_from_source(cls, config: DualEncoderConfig, prefix: str) -> nn.Module:
        """Builds one pretrained part (`image.` or `text.`) from its source, for an adapter's base."""
        if prefix == "image.":
            return ImageEncoder(config.image)
        return _text_encoder(config, None)

    def sources(self) -> dict[str, str]:
        """Part -> name its pretrained weights came from, for the parts that have one."""
        found = {"image.": self.config.image.name} if self.config.image.pretrained else {}
        if self.config.text_embedder is not None and self.config.text_embedder.pretrained:
            found["text."] = self.config.text_embedder.name
        return found


def _text_encoder(config: DualEncoderConfig, release: Path | None) -> TextEncoder:
    if (config.text_embedder is None) == (config.text_tower is None):
        raise RecipeError("model: give exactly one of text_embedder (pretrained) and text_tower (from scratch)")
    folder = None if release is None else release / "text"
    if config.text_embedder is not None:
        return TextEmbedder(config.text_embedder, load_weights=release is None, folder=folder)
    assert config.text_tower is not None
    return ClipTextTower(config.text_tower)


def _projector(config: ProjectorConfig | None, width_in: int, width_out: int, where: str) -> nn.Module:
    if config is None:
        if width_in != width_out:
            raise AssemblyError(f"model.{where} is off, but its encoder is {width_in} wide and the joint space {width_out}")
        return nn.Identity()
    cls: type[Projector] = PROJECTORS.get(config.name)
    return fill(cls, config.options, f"model.{where}.options", width_in=width_in, width_out=width_out)
