"""Settings of a stack of encoder, projector and language model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..encoders.image.build import ImageEncoderConfig
from ..errors import RecipeError
from ..families.assembly import ProjectorConfig
from ..language.causal import CausalConfig
from ..language.lora import LoraSettings
from .pictures import PictureConfig


@dataclass
class ChatConfig:
    """How conversations are written for the language model.

    Attributes:
        template: `tokenizer` for the tokenizer's own chat template, or `plain`, `vicuna_v1`, `llava_llama_2`, `mistral_instruct`, `mpt`,
            `chatml_direct`, `qwen_1_5`.
        system: A system message for conversations without one.
        max_length: Most tokens of a conversation, pictures included; whole pairs of turns that do not fit are left out.
        pictures_first: Pictures of a turn stand in front of it, each followed by a line break, as in LLaVA-1.5.
        box_decimals: Digits of a coordinate.
    """

    template: str = "tokenizer"
    system: str = ""
    max_length: int = 2048
    pictures_first: bool = False
    box_decimals: int = 3

    def __post_init__(self) -> None:
        """Checks what types cannot say.

        Raises:
            RecipeError: If a number is out of range.
        """
        if self.max_length < 2 or not 1 <= self.box_decimals <= 6:
            raise RecipeError(
                f"model.chat: max_length {self.max_length} must be 2 or more, box_decimals {self.box_decimals} from 1 to 6"
            )


@dataclass
class StackConfig:
    """Settings of a stack.

    Attributes:
        base: A LLaVA folder of transformers that encoder, projector and language model start from; then `image`, `language` and all that
            it says of itself are taken from there.
        image: The image encoder.
        feature_layer: Which hidden state of it is taken, as transformers numbers them (-2 in LLaVA-1.5); a list puts several side by side;
            default its output.
        keep_prefix: Keep class token and registers among the features.
        picture: How pictures are shown to it.
        projector: From its features to the language model.
        newline: A learned token behind every row of `picture.mode: anyres`; default where there is that mode.
        language: The language model.
        lora: Adapters beside its matrices (QLoRA with `language.quantize: nf4`); null trains the matrices themselves, or nothing.
        chat: How conversations are written.
        hooks: What methods add: name -> settings (`modalign zoo list`).
        asked: What it was asked when it was trained (a recipe's `data.dialogue`); set by training, saved with it.
    """

    base: str | None = None
    image: ImageEncoderConfig = field(default_factory=ImageEncoderConfig)
    feature_layer: int | list[int] | None = None
    keep_prefix: bool = False
    picture: PictureConfig = field(default_factory=PictureConfig)
    projector: ProjectorConfig = field(default_factory=lambda: ProjectorConfig("mlp"))
    newline: bool | None = None
    language: CausalConfig = field(default_factory=CausalConfig)
    lora: LoraSettings | None = None
    chat: ChatConfig = field(default_factory=ChatConfig)
    hooks: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        """Checks what types cannot say.

        Raises:
            RecipeError: If a token is asked for that no row of features would have.
        """
        if self.newline and self.picture.mode != "anyres":
            raise RecipeError(
                f"model.newline: only picture.mode: anyres has rows to end, and the mode is {self.picture.mode}; take one of the two out"
            )

    @property
    def has_newline(self) -> bool:
        """Whether there is a newline token."""
        return self.picture.mode == "anyres" if self.newline is None else self.newline
