"""From states to logits the way a causal language model goes: some scale them, some cap them, each in its own forward."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class GivenHead(nn.Module):
    """A linear layer of a weight and a bias that belong to someone else.

    Args:
        weight: (V, D).
        bias: (V,), or None.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self._given = (weight, bias)  # in a tuple: no parameters of this module

    def forward(self, states: Tensor) -> Tensor:
        """(…, D) -> (…, V)."""
        weight, bias = self._given
        return nn.functional.linear(states, weight.to(states.dtype), bias)


class _GivenBody(nn.Module):
    """Stands for a body whose states are known; some models call its decoder instead."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        self._output = output

    def forward(self, *_: Any, **__: Any) -> Any:
        """The states, whatever is asked."""
        return self._output

    @property
    def decoder(self) -> nn.Module:
        """Itself."""
        return self


def scaled_logits(model: Any, states: Tensor, head: nn.Module) -> Tensor:
    """The model's own way from states to logits: its forward, with its body replaced by what is known already.

    The order of its parts stays: it decides which name a weight shared by two of them has.

    Args:
        model: A model for causal language modelling.
        states: (…, D), behind the final norm.
        head: Its output layer, or one that stands for it.

    Returns:
        (…, V).
    """
    from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

    name, flat = model.base_model_prefix, states.reshape(1, -1, states.shape[-1])
    body, own = getattr(model, name), model.get_output_embeddings()
    try:
        setattr(model, name, _GivenBody(BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=flat)))
        model.set_output_embeddings(head)
        logits = model(inputs_embeds=flat).logits
    finally:
        setattr(model, name, body)
        model.set_output_embeddings(own)
    return logits.reshape(*states.shape[:-1], -1)
