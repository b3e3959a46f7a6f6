"""What a release of a stack needs: settings, processors, sources, and where the language model's own weights are kept."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..checkpoints.llava.base import fill_part, shape_of
from ..encoders.image.build import build_image_encoder
from ..language.causal import CausalLanguageModel, build_causal
from ..language.frozen_store import FrozenStore, leave_all_but
from ..language.lora import LoraSettings, add_lora
from ..language.quantized import is_quantized, refuse_quantized
from .assemble import lora_for
from .parts import STORED, StackParts


class StackKeeping(StackParts):
    """What a stack says of itself to those who save and load it; see `StackModel`."""

    def after_step(self) -> None:
        """Lets the hooks keep within bounds what they must."""
        for hook in self.hooks.values():
            hook.after_step()

    def add_lora(self, settings: LoraSettings) -> None:
        """Puts fresh adapters beside the language model's matrices; outputs do not change until they train.

        Args:
            settings: Rank and all; default targets are every linear layer of the blocks.
        """
        add_lora(self.language.body, lora_for(settings, self.language.body), self.config.language.shown)
        self.config = replace(self.config, lora=settings)

    @property
    def can_be_whole(self) -> bool:
        """Whether a full release is possible; not with matrices in 4 bits, which are made of the base again."""
        return not is_quantized(self.language)

    def refuse_whole(self) -> None:
        """Refuses a full release that would not load.

        Raises:
            AssemblyError: If matrices are held in 4 bits.
        """
        refuse_quantized(self.language, "a full release")

    def settings(self) -> dict[str, Any]:
        """Everything `from_settings` needs, as plain values."""
        return asdict(self.config)

    def quick_gelu(self) -> dict[str, bool]:
        """Whether the image encoder computes QuickGELU; a release states it."""
        return {"image": self.image.quick_gelu}

    def save_processors(self, folder: Path) -> None:
        """Writes what a release needs besides weights: the shapes of encoder and language model, and the tokenizer."""
        for name, part in (("image", self.image), ("language", self.language)):
            (folder / name).mkdir()
            part.save_processor(folder / name)

    def sources(self) -> dict[str, str]:
        """Part -> name its pretrained weights came from, for the parts that have one."""
        if self.config.base is not None:
            return {"image.": self.config.base, f"{STORED}.": self.config.base}
        found = {"image.": self.config.image.name} if self.config.image.pretrained else {}
        if self.config.language.name is not None and self.config.language.pretrained:
            found[f"{STORED}."] = self.config.language.name
        return found

    @classmethod
    def part_from_source(cls, config: Any, prefix: str) -> nn.Module:
        """Builds one pretrained part from its source, as this family holds it, for an adapter's base."""
        if config.base is not None:
            return _part_of_base(config, prefix)
        if prefix == "image.":
            return build_image_encoder(config.image)
        return store_of(build_causal(config.language))

    def adapt_state(self, state: dict[str, Tensor], prefix: str = "") -> None:
        """Brings the weights of an older release into today's shape, in place."""


def _part_of_base(config: Any, prefix: str) -> nn.Module:
    """One part of a LLaVA folder, without the others."""
    with shape_of(config.base) as base:
        if prefix == "image.":
            part: nn.Module = build_image_encoder(
                config.image, load_weights=False, preprocess=base.preprocess, folder=base.shape / "image"
            )
            body = "model"
        else:
            language = build_causal(config.language, base.shape)
            part, body = store_of(language), str(language.model.base_model_prefix)
    fill_part(base.folder, part, prefix, body)
    return part


def store_of(language: CausalLanguageModel) -> FrozenStore:
    """All of a language model but its adapters, under the names of the pretrained model, and out of its own state."""
    store = FrozenStore({plain_name(name): tensor for name, tensor in language.named_parameters() if ".lora_" not in name})
    leave_all_but(language, lambda name: ".lora_" in name)
    return store


def plain_name(name: str) -> str:
    """A parameter's name in the pretrained model."""
    return name.removeprefix("model.").replace(".base_layer.", ".")
