"""Settings of the language model of a stack."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from ..errors import AssemblyError, RecipeError


@dataclass
class CausalConfig:
    """Settings of the language model of a stack.

    Attributes:
        name: `asset:NAME`, `hf:ORG/NAME` or a folder of transformers that holds a causal language model.
        architecture: Instead of a name: a transformers configuration as plain values, for random weights; then give `tokenizer`.
        blocks: How many of its first blocks are kept; default all.
        tokenizer: Where its tokenizer is, if not with the model.
        pretrained: Read its weights; False starts from random ones of the same shape.
        attention: How transformers computes attention; default its own choice (`sdpa` where the model can).
        quantize: `nf4` holds the matrices in 4 bits (QLoRA, by bitsandbytes), for LoRA beside them; its releases are adapters.
    """

    name: str | None = "asset:smollm2-135m-instruct"
    architecture: dict[str, Any] = field(default_factory=dict)
    blocks: int | None = None
    tokenizer: str | None = None
    pretrained: bool = True
    attention: Literal["sdpa", "eager", "flash_attention_2", "flex_attention"] | None = None
    quantize: Literal["nf4"] | None = None

    def __post_init__(self) -> None:
        """Checks what types cannot say.

        Raises:
            RecipeError: If the model is given twice or not at all, or nothing says how texts become tokens.
        """
        if self.blocks is not None and self.blocks < 1:
            raise RecipeError(f"model.language.blocks: {self.blocks} must be 1 or more")
        if bool(self.name) == bool(self.architecture):
            raise RecipeError("model.language: give either name or architecture (then with name: null)")
        if self.quantize is not None and not (self.name and self.pretrained):
            raise RecipeError("model.language.quantize: only a pretrained model by name can be held in 4 bits; take it out")
        if self.architecture and not self.tokenizer:
            raise RecipeError("model.language: an architecture alone has no tokenizer; name one with model.language.tokenizer")

    @property
    def shown(self) -> str:
        """What messages call it."""
        return self.name or f"an architecture of type {self.architecture.get('model_type')!r}"


def check_class(config: CausalConfig, hf_config: Any) -> None:
    """Refuses what transformers cannot build.

    Args:
        config: The settings.
        hf_config: The transformers configuration of the model.

    Raises:
        AssemblyError: If it is no causal language model, or has no such attention.
    """
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    if type(hf_config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise AssemblyError(f"{config.shown}: a {hf_config.model_type} is no causal language model; take one such as Llama")
    flag = {"sdpa": "_supports_sdpa", "flash_attention_2": "_supports_flash_attn", "flex_attention": "_supports_flex_attn"}
    if not getattr(MODEL_FOR_CAUSAL_LM_MAPPING[type(hf_config)], flag.get(config.attention or "", ""), True):
        raise AssemblyError(
            f"model.language.attention: transformers has no {config.attention} for {config.shown}; take eager, or leave it out"
        )
