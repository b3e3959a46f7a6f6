"""A whole causal language model: embeddings in, states and logits out, with its tokenizer and its way to write conversations."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..encoders.hf_loading import longest_text
from ..encoders.sources import trusted_source
from ..encoders.text.hf_tokenize import load_tokenizer
from ..errors import AssemblyError
from .causal_config import CausalConfig, check_class
from .loading import load_decoder, read_config
from .packed import keeps_apart
from .quantized import nf4
from .scaled_head import GivenHead, scaled_logits

__all__ = ["CausalConfig", "CausalLanguageModel", "build_causal"]


class CausalLanguageModel(nn.Module):
    """A causal language model of transformers.

    Attributes:
        model: The model with its output layer.
        tokenizer: Its tokenizer.
        width: D.
        vocabulary: Rows of its token table.
        plain_head: Whether logits are `states · weightᵀ + bias` and nothing more; found out by trying.
    """

    def __init__(self, config: CausalConfig, model: Any, tokenizer: Any) -> None:
        """Wraps a model; `build_causal` makes one from settings.

        Args:
            config: Its settings.
            model: A model for causal language modelling.
            tokenizer: Its tokenizer.

        Raises:
            AssemblyError: If the tokenizer knows more tokens than the model has embeddings.
        """
        super().__init__()
        self.config = config
        self.model = model
        self.tokenizer = tokenizer
        table = model.get_input_embeddings().weight
        self.vocabulary, self.width = int(table.shape[0]), int(table.shape[1])
        if len(tokenizer) > self.vocabulary:
            raise AssemblyError(
                f"{config.shown}: the tokenizer knows {len(tokenizer)} tokens, the token table has {self.vocabulary} rows; grow the "
                "table with the tokenizer, or take the tokenizer that belongs to these weights"
            )
        self.plain_head = self._tries_head()
        self._keeps_apart: bool | None = None  # packed sequences; found out when there are some

    @property
    def body(self) -> Any:
        """The model without its output layer."""
        return getattr(self.model, self.model.base_model_prefix)

    @property
    def max_positions(self) -> int:
        """Most tokens it has positions for."""
        return longest_text(self.model)

    @property
    def table(self) -> Tensor:
        """Its token embeddings (vocabulary, D)."""
        return self.model.get_input_embeddings().weight

    def embed(self, ids: Tensor) -> Tensor:
        """(B, T) -> (B, T, D), in the scale in which the body takes them."""
        return self.model.get_input_embeddings()(ids)

    def states(self, embeddings: Tensor, mask: Tensor | None = None, positions: Tensor | None = None) -> Tensor:
        """Embeddings (B, T, D) -> states behind the final norm (B, T, D).

        Args:
            embeddings: The tokens.
            mask: (B, T), True where there is a token. None with `positions` for packed rows: where positions begin anew a new sequence
                begins, and no token sees another sequence (a block mask with sdpa and eager attention, lengths with flash attention).
            positions: (B, T); default they count from each row's first token.

        Raises:
            AssemblyError: If there are more tokens than positions, or the model lets packed sequences see each other.
        """
        if embeddings.shape[1] > self.max_positions and positions is None:
            raise AssemblyError(
                f"{embeddings.shape[1]} tokens are more than the {self.max_positions} positions of {self.config.shown}; lower "
                "model.chat.max_length"
            )
        if mask is None and positions is not None:
            self._check_packing()
        if mask is not None and bool(mask.all()):
            mask = None  # plain causal attention, for which there are faster kernels
        if mask is not None and positions is None:
            positions = (mask.long().cumsum(1) - 1).clamp(min=0)
        seen = None if mask is None else mask.long()
        return self.body(inputs_embeds=embeddings, attention_mask=seen, position_ids=positions, use_cache=False).last_hidden_state

    def _check_packing(self) -> None:
        if self._keeps_apart is None:
            self._keeps_apart = keeps_apart(self.body, self.table)
        if not self._keeps_apart:
            raise AssemblyError(
                f"{self.config.shown}: transformers lets the sequences of a packed row see each other in a model of this kind; turn "
                "packing off, or take another language model"
            )

    def head(self) -> tuple[Tensor, Tensor | None]:
        """Weight (vocabulary, D) and bias of the output layer."""
        layer = self.model.get_output_embeddings()
        return layer.weight, layer.bias

    def logits(self, states: Tensor, head: tuple[Tensor, Tensor | None] | None = None) -> Tensor:
        """States (…, D) -> logits (…, vocabulary), with whatever else the model does to them.

        Args:
            states: Behind the final norm.
            head: Weight and bias that stand for those of the output layer, of a larger vocabulary.
        """
        layer = self.model.get_output_embeddings() if head is None else GivenHead(*head)
        return layer(states) if self.plain_head else scaled_logits(self.model, states, layer)

    @torch.no_grad()
    def _tries_head(self) -> bool:
        """Some models scale or cap their logits, which a loss that takes states and weight would not know: states large enough tell."""
        states = 100 * torch.linspace(-1, 1, 2 * self.width, dtype=self.table.dtype, device=self.table.device).view(2, self.width)
        layer = self.model.get_output_embeddings()
        return bool(torch.allclose(layer(states), scaled_logits(self.model, states, layer), rtol=1e-4, atol=1e-4))

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recomputes activations in the backward pass instead of keeping them."""
        from ..encoders.hf_loading import checkpoint_body

        checkpoint_body(self.model, f"the language model {self.config.shown}", enable)

    def save_processor(self, folder: Path) -> None:
        """Writes configuration and tokenizer, which give a release its shape."""
        config = copy.deepcopy(self.model.config)
        if hasattr(config, "quantization_config"):
            del config.quantization_config  # the settings say it; a source of whole numbers must not seem to hold 4 bits
        config.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


def build_causal(config: CausalConfig, release: Path | None = None) -> CausalLanguageModel:
    """Builds the language model.

    Args:
        config: Its settings.
        release: Folder of a release (its `language/`): only the shape is built, and no source is read.

    Raises:
        AssemblyError: If it is no causal language model, or its tokenizer does not suit.
        ReleaseError: If a file is missing or damaged.
    """
    folder = None if release is None else release / "language"
    hf_config = read_config(config, folder)
    check_class(config, hf_config)
    if config.attention is not None:
        hf_config._attn_implementation = config.attention
    quantized = config.quantize is not None  # its numbers are not in a release: they are made of the base again
    pretrained = (release is None or quantized) and config.pretrained and config.name is not None
    model = load_decoder(config, hf_config, pretrained=pretrained, head=True, more=nf4() if quantized else None)
    source = folder or trusted_source(config.tokenizer or config.name or "").files()
    return CausalLanguageModel(config, model.eval(), load_tokenizer(source, config.shown))
