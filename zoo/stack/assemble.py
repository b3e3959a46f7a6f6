"""What is built for a stack from the settings of its parts, and refused where parts do not fit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import nn

from ..configure import constructor_types, fill
from ..encoders.image.preprocess import ImagePreprocess
from ..errors import AssemblyError
from ..families.assembly import ProjectorConfig
from ..language.lora import LoraSettings
from ..projectors.base import Projector
from ..registry import PROJECTORS


def build_stack_projector(config: ProjectorConfig, width_in: int, width_out: int, tokens: int) -> Projector:
    """The projector between an encoder's tokens and the language model.

    Args:
        config: Which one.
        width_in: D_v of a token.
        width_out: D of the language model.
        tokens: V of a tile.

    Raises:
        AssemblyError: If it cannot serve these tokens; it says why.
    """
    cls: Any = PROJECTORS.get(config.name)
    fixed: dict[str, Any] = {"width_in": width_in, "width_out": width_out}
    if "tokens_in" in constructor_types(cls):
        fixed["tokens_in"] = tokens
    built: Projector = fill(cls, config.options, "model.projector.options", **fixed)
    built.num_tokens(tokens)  # refuses what it cannot serve, before anything is trained
    return built


def lora_for(settings: LoraSettings, body: nn.Module) -> LoraSettings:
    """LoRA's settings with targets: where none are named, every linear layer of the blocks, as LLaVA takes them.

    Raises:
        AssemblyError: If the body has no linear layer.
    """
    if settings.targets is not None:
        return settings
    linear = (nn.Linear,)
    names = {name.rpartition(".")[2] for name, part in body.named_modules() if isinstance(part, linear)}
    names |= {name.rpartition(".")[2] for name, part in body.named_modules() if type(part).__name__ == "Conv1D"}
    if not names:
        raise AssemblyError("model.lora: the language model has no linear layer to adapt; take lora out")
    return replace(settings, targets=sorted(names))


def shown_as(preprocess: ImagePreprocess, mode: str) -> ImagePreprocess:
    """The encoder's preprocessing, with the picture shown in another way."""
    if mode not in ("pad", "squash"):
        return preprocess
    red, green, blue = (int(255 * channel) for channel in preprocess.mean)
    fill_ = (red, green, blue) if mode == "pad" else preprocess.fill
    return replace(preprocess, resize_mode="pad" if mode == "pad" else "squash", crop_fraction=1.0, resize_to=None, fill=fill_)
