"""CoCa (Yu et al. 2022, arXiv 2205.01917): contrastive captioners, built from open_clip's towers and decoder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor, nn

from ...checkpoints.open_clip import CONFIG
from ...encoders.image.open_clip import OpenClipImageEncoder
from ...encoders.open_clip_source import checkpoint_of
from ...encoders.sources import open_source, read_json
from ...encoders.text.open_clip import OpenClipTextEncoder
from ...errors import AssemblyError
from ..dual_encoder import DualEncoder, DualEncoderConfig
from .decoder import build_decoder, decode, greedy


@dataclass
class CocaConfig(DualEncoderConfig):
    """Settings of CoCa: image and text towers of one open_clip CoCa model, whose decoder comes along.

    Attributes:
        caption_output: What the decoder gives to the loss: `logits`, or `hidden` states with the head's weight, for a loss that never
            holds all logits.
    """

    caption_output: Literal["logits", "hidden"] = "logits"


class CocaModel(DualEncoder):
    """A dual encoder with a text decoder (role `language`) that attends to the picture.

    Where a batch holds pictures and token ids row by row, the outputs also have `caption_labels` (B, T-1), the ids from the second on
    with padding 0, and `caption_logits` (B, T-1, V), or with `caption_output: hidden` `caption_hidden` (B, T-1, D) and `caption_head`
    (V, D).
    """

    family = "coca"
    Config = CocaConfig
    parts = {**DualEncoder.parts, "decoder": ("decoder.",)}
    _roles = {**DualEncoder._roles, "decoder": "language"}

    def __init__(self, config: CocaConfig, *, release: Path | None = None, preprocess: dict[str, Any] | None = None) -> None:
        """See `DualEncoder`.

        Raises:
            AssemblyError: If the towers are not those of an open_clip CoCa model.
        """
        super().__init__(config, release=release, preprocess=preprocess)
        towers = isinstance(self.image, OpenClipImageEncoder) and isinstance(self.text, OpenClipTextEncoder)
        if (
            not towers
            or not getattr(self.image.model, "output_tokens", False)
            or not getattr(self.text.model, "output_tokens", False)
        ):
            raise AssemblyError(
                "model: coca needs image and text_embedder of an open_clip CoCa model, such as open_clip:coca_ViT-B-32"
            )
        self.decoder_cfg, state = _decoder_source(config, release)
        self.decoder = build_decoder(self.decoder_cfg, state, str(config.image.name))

    def forward(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Embeds whatever the batch holds, and decodes captions where pictures and texts go together; see the class."""
        if "image" not in batch or "text_ids" not in batch:
            return super().forward(batch)
        pooled, seen = self.image.pooled_and_tokens(batch["image"])  # type: ignore[operator]
        features, states = self.text.pooled_and_tokens(batch["text_ids"])  # type: ignore[operator]
        rest = {key: value for key, value in batch.items() if not key.startswith(("image", "text_"))}
        outputs = super().forward(rest)
        outputs["image_embedding"] = self._project(self.image_projector, pooled)
        outputs["text_embedding"] = self._project(self.text_projector, features)
        if len(seen) != len(states):
            raise AssemblyError(f"coca: {len(seen)} pictures and {len(states)} texts do not go together row by row")
        hidden = decode(self.decoder, seen, states[:, :-1])
        outputs["caption_labels"] = batch["text_ids"][:, 1:]
        if self.config.caption_output == "hidden":
            return outputs | {"caption_hidden": hidden, "caption_head": self.decoder.text_projection.T}
        return outputs | {"caption_logits": hidden @ self.decoder.text_projection}

    @torch.inference_mode()
    def generate(self, images: Sequence[Image.Image], max_length: int = 30) -> list[str]:
        """Writes a caption for each picture, taking the likeliest token each time.

        Args:
            images: The pictures.
            max_length: Most tokens of a caption, start and end included.
        """
        self.eval()
        tokenizer = self.text.tokenizer().inner
        pixels = torch.stack([self.image.preprocess(image) for image in images]).to(self.device)
        _, seen = self.image.pooled_and_tokens(pixels)  # type: ignore[operator]

        def step(ids: Tensor) -> Tensor:
            states = self.text.pooled_and_tokens(ids)[1]  # type: ignore[operator]
            return decode(self.decoder, seen, states)[:, -1] @ self.decoder.text_projection

        limit = min(max_length, int(self.decoder.context_length))
        rows = greedy(step, len(pixels), tokenizer.sot_token_id, tokenizer.eot_token_id, limit, self.device)
        special = {tokenizer.sot_token_id, tokenizer.eot_token_id, 0}
        return [tokenizer.decode([token for token in row if token not in special]).strip() for row in rows.tolist()]

    def save_processors(self, folder: Path) -> None:
        """See `DualEncoder.save_processors`; also the decoder's description."""
        super().save_processors(folder)
        (folder / "decoder").mkdir()
        (folder / "decoder" / CONFIG).write_text(json.dumps({"model_cfg": self.decoder_cfg}, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def part_from_source(cls, config: Any, prefix: str) -> nn.Module:
        """See `DualEncoder.part_from_source`."""
        if prefix != "decoder.":
            return super().part_from_source(config, prefix)
        return build_decoder(*_decoder_source(config, None), str(config.image.name))

    def sources(self) -> dict[str, str]:
        """See `DualEncoder.sources`."""
        found = super().sources()
        return found | ({"decoder.": self.config.image.name} if "image." in found else {})

    def quick_gelu(self) -> dict[str, bool]:
        """See `DualEncoder.quick_gelu`."""
        from ...encoders.image.base import uses_quick_gelu

        return {**super().quick_gelu(), "decoder": uses_quick_gelu(self.decoder)}


def _decoder_source(config: CocaConfig, release: Path | None) -> tuple[dict[str, Any], dict[str, Tensor] | None]:
    """What the decoder is built from, and its weights unless a release supplies them or it starts from random ones."""
    if release is not None:
        return read_json(release / "decoder" / CONFIG)["model_cfg"], None
    checkpoint = checkpoint_of(open_source(config.image.name), config.image.name, weights=config.image.pretrained)
    if "multimodal_cfg" not in checkpoint.model_cfg:
        raise AssemblyError(f"{config.image.name}: has no multimodal_cfg, so it is no CoCa; family clip takes it")
    cfg: dict[str, Any] = {
        key: checkpoint.model_cfg[key] for key in ("multimodal_cfg", "quick_gelu") if key in checkpoint.model_cfg
    }
    cfg["vocab_size"] = int(checkpoint.model_cfg["text_cfg"].get("vocab_size", 49408))
    return cfg, checkpoint.part("decoder") if checkpoint.weights is not None else None
