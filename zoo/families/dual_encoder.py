"""What CLIP-like families share: two encoders, two projectors, one joint space of unit vectors and a learned scale."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from ..configure import fill
from ..encoders.image.base import ImageEncoder
from ..encoders.image.build import build_image_encoder
from ..encoders.text.base import TextEncoder
from ..errors import AssemblyError
from .assembly import DualEncoderConfig, ProjectorConfig, build_projector, build_text_side
from .inputs import check_texts, picture_batches

__all__ = ["MAX_LOG_SCALE", "DualEncoder", "DualEncoderConfig", "ProjectorConfig"]
MAX_LOG_SCALE = math.log(100.0)


class DualEncoder(nn.Module):
    """Two encoders whose projected, L2-normalised outputs live in one space.

    Roles of its parameters: `encoder` image encoder, `embedder` text encoder, `head` image projection, `projector` text projection,
    `aux` the logit scale and, where there is one, the logit bias.
    """

    family = "dual_encoder"
    Config: type = DualEncoderConfig
    #: part name -> parameter prefixes, for `init_from` of a stage
    parts: Mapping[str, tuple[str, ...]] = {
        "image": ("image.", "image_projector."),
        "text": ("text.", "text_projector."),
        "scale": ("logit_scale", "logit_bias"),
    }
    _roles: Mapping[str, str] = {
        "image": "encoder",
        "text": "embedder",
        "image_projector": "head",
        "text_projector": "projector",
        "logit_scale": "aux",
        "logit_bias": "aux",
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
        self.config: Any = config
        self.image, self.text, self.image_projector, self.text_projector = self._assemble(release, preprocess)
        config = self.config  # which a family may have changed
        self.logit_scale = nn.Parameter(torch.tensor(float(config.logit_scale_init)))
        bias = config.logit_bias_init
        self.logit_bias = None if bias is None else nn.Parameter(torch.tensor(float(bias)))
        self.register_load_state_dict_pre_hook(_adapt_hook)

    def _assemble(
        self, release: Path | None, preprocess: dict[str, Any] | None
    ) -> tuple[ImageEncoder, TextEncoder, nn.Module, nn.Module]:
        """Image encoder, text encoder and both projectors; a family that takes them from elsewhere also sets `config` to say so."""
        config: DualEncoderConfig = self.config
        shape = None if release is None or not (release / "image").is_dir() else release / "image"
        image = build_image_encoder(config.image, load_weights=release is None, preprocess=preprocess, folder=shape)
        text = self._build_text(config, release)
        head = build_projector(config.image_projector, image, config.embed_dim, "image_projector")
        return image, text, head, build_projector(config.text_projector, text, config.embed_dim, "text_projector")

    @classmethod
    def _build_text(cls, config: Any, release: Path | None) -> TextEncoder:
        return build_text_side(config, release)

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
                `text_features` (N, D_text); the same with `second_` in front for a second caption, with `negative_` for texts that
                belong to no picture, and with `grouped_` for captions each followed by its negatives.

        Returns:
            `image_embedding` (B, D), `text_embedding` (N, D), the latter with the same prefixes, each where there is input, as unit
            vectors; `logit_scale`, exponentiated, and `logit_bias` where the family has one.
        """
        outputs = self._scalars()
        if "image_features" in batch:
            pooled = self.image.above(batch["image_features"], batch["image_cut"])
            outputs["image_embedding"] = self._project(self.image_projector, pooled)
        elif "image" in batch:
            outputs["image_embedding"] = self._project(self.image_projector, self.image.pooled(batch["image"]))
        for prefix in ("", "second_", "negative_", "grouped_"):
            if f"{prefix}text_features" in batch:
                features = batch[f"{prefix}text_features"].float()
            elif f"{prefix}text_ids" in batch:
                features = self.text(batch[f"{prefix}text_ids"], batch[f"{prefix}text_mask"])
            else:
                continue
            outputs[f"{prefix}text_embedding"] = self._project(self.text_projector, features)
        return outputs

    def _scalars(self) -> dict[str, Tensor]:
        """Scale and bias as scalars, whether they are kept as such or, for sharding, as vectors of length one."""
        outputs = {"logit_scale": self.logit_scale.exp().reshape(())}
        if self.logit_bias is not None:
            outputs["logit_bias"] = self.logit_bias.reshape(())
        return outputs

    @staticmethod
    def _project(projector: nn.Module, features: Tensor) -> Tensor:
        weight = next(projector.parameters(), None)
        if weight is not None and not torch.is_autocast_enabled(features.device.type):
            features = features.to(weight.dtype)  # cached ones are float32, whatever the module computes in
        projected = projector(features)
        return F.normalize(projected.to(torch.promote_types(projected.dtype, torch.float32)), dim=-1)

    def after_step(self) -> None:
        """Keeps the scale within [1, 100], as CLIP does after every optimiser step."""
        with torch.no_grad():
            self.logit_scale.clamp_(0.0, MAX_LOG_SCALE)

    def set_grad_checkpointing(self, enable: bool = True, parts: Sequence[str] = ("image", "text")) -> None:
        """Recomputes activations of the encoders in the backward pass instead of keeping them.

        Args:
            enable: On or off.
            parts: `image`, `text` or both.

        Raises:
            AssemblyError: If an encoder cannot.
        """
        for part in parts:
            getattr(self, part).set_grad_checkpointing(enable)

    @property
    def device(self) -> torch.device:
        """Where its parameters are."""
        return self.logit_scale.device

    @torch.inference_mode()
    def encode_image(self, images: Sequence[Image.Image], batch_size: int = 64, dim: int | None = None) -> Tensor:
        """Pictures -> unit vectors (N, D), float32 on the CPU.

        Args:
            images: The pictures.
            batch_size: Pictures at a time.
            dim: Keep the first `dim` values and make them unit vectors again (Matryoshka); None keeps all D.

        Raises:
            AssemblyError: If given a single picture instead of a list, anything that is no PIL picture (its position is named), or
                more dimensions than there are.
        """
        self._check_dim(dim)
        self.eval()
        parts = [self.image_vectors(batch) for batch in picture_batches(images, batch_size)]
        return truncated(torch.cat(parts) if parts else torch.empty(0, self.config.embed_dim), dim)

    def image_vectors(self, images: Sequence[Image.Image]) -> Tensor:
        """One batch of `encode_image`."""
        pixels = torch.stack([self.image.preprocess(image) for image in images]).to(self.device)
        return self._project(self.image_projector, self.image.pooled(pixels)).cpu()

    @torch.inference_mode()
    def encode_text(self, texts: Sequence[str], batch_size: int = 128, dim: int | None = None) -> Tensor:
        """Strings -> unit vectors (N, D), float32 on the CPU.

        Args:
            texts: The strings.
            batch_size: Strings at a time.
            dim: Keep the first `dim` values and make them unit vectors again (Matryoshka); None keeps all D.

        Raises:
            AssemblyError: If given a single string instead of a list, anything that is no string (its position is named), or more
                dimensions than there are.
        """
        check_texts(texts)
        self._check_dim(dim)
        self.eval()
        return truncated(self.project_text(self.text.embed(texts, batch_size)), dim)

    @torch.inference_mode()
    def project_text(self, features: Tensor) -> Tensor:
        """Text features (N, D_text) -> unit vectors (N, D) on the CPU."""
        self.eval()
        return self._project(self.text_projector, features.to(self.device)).cpu()

    def _check_dim(self, dim: int | None) -> None:
        if dim is not None and not 1 <= dim <= self.config.embed_dim:
            raise AssemblyError(f"dim: {dim} is not between 1 and {self.config.embed_dim}, the width of this model's joint space")

    def settings(self) -> dict[str, Any]:
        """Everything `from_settings` needs, as plain values."""
        return asdict(self.config)

    def quick_gelu(self) -> dict[str, bool]:
        """Part -> whether it computes QuickGELU; a release states it, so that a mismatch with its weights is seen."""
        return {"image": self.image.quick_gelu, "text": self.text.quick_gelu}

    def save_processors(self, folder: Path) -> None:
        """Writes what a release needs besides weights: both encoders' configuration and the text side's tokenizer."""
        for part, encoder in (("image", self.image), ("text", self.text)):
            (folder / part).mkdir()
            encoder.save_processor(folder / part)

    @classmethod
    def part_from_source(cls, config: Any, prefix: str) -> nn.Module:
        """Builds one pretrained part (`image.` or `text.`) from its source, as this family holds it, for an adapter's base."""
        encoder: Any = build_image_encoder(config.image) if prefix == "image." else cls._build_text(config, None)
        if (config.image_projector if prefix == "image." else config.text_projector) is None:
            encoder.split_projection()
        return encoder

    def sources(self) -> dict[str, str]:
        """Part -> name its pretrained weights came from, for the parts that have one."""
        found = {"image.": self.config.image.name} if self.config.image.pretrained else {}
        if self.config.text_embedder is not None and self.config.text_embedder.pretrained:
            found["text."] = self.config.text_embedder.name
        return found

    def adapt_state(self, state: dict[str, Tensor], prefix: str = "") -> None:
        """Brings the weights of an older release into today's shape, in place.

        Scalars may be vectors of length one, and the other way round; a tower's own projection once lay inside the tower.
        """
        for name in ("logit_scale", "logit_bias"):
            own = getattr(self, name)
            if own is not None and (value := state.get(prefix + name)) is not None and value.numel() == 1:
                state[prefix + name] = value.reshape(own.shape)
        old, new = f"{prefix}text.model.text_projection", f"{prefix}text_projector.weight"
        if old in state and new not in state and getattr(self.text_projector, "weight", None) is not None:
            state[new] = state.pop(old)


def _adapt_hook(module: Any, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    module.adapt_state(state, prefix)


def truncated(vectors: Tensor, dim: int | None) -> Tensor:
    """The first `dim` values of unit vectors (N, D), made unit vectors again; all of them for None."""
    return vectors if dim is None else F.normalize(vectors[:, :dim], dim=-1)
