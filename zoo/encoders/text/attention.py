"""Which way a language model's tokens look: backwards only, or both ways as an embedder may.

transformers makes a decoder bidirectional by its configuration's `is_causal: false`, which its mask functions follow; attention
layers keep a flag of their own for the fused kernels, so both are set, and a probe shows whether it worked: layers with a causal mask of
their own, recurrent and convolutional models stay causal and are refused.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ...errors import AssemblyError


def set_attention(model: Any, bidirectional: bool | None, shown: str) -> None:
    """Makes a model look both ways, or makes sure that it does not.

    Args:
        model: A transformers model of token states.
        bidirectional: True for both ways, False for backwards only, None for what its configuration says.
        shown: What messages call the model.

    Raises:
        AssemblyError: If the model cannot do what is asked.
    """
    if bidirectional is None:
        if getattr(model.config, "is_causal", True) is False:
            _look_both_ways(model)
        return
    if not bidirectional and getattr(model.config, "is_causal", True) is False:
        raise AssemblyError(f"{shown}: bidirectional: false, but its config.json says is_causal: false; leave bidirectional out")
    if bidirectional:
        _look_both_ways(model)
    if any(parameter.is_meta for parameter in model.parameters()):
        return
    if looks_ahead(model) != bidirectional:
        raise AssemblyError(
            f"{shown}: bidirectional: {str(bidirectional).lower()} cannot be had: its layers "
            + (
                "are causal by themselves; leave it out, or take another model"
                if bidirectional
                else "look both ways; leave it out"
            )
        )


def _look_both_ways(model: nn.Module) -> None:
    for part in model.modules():
        if getattr(part, "is_causal", None) is True:
            part.is_causal = False  # type: ignore[assignment]
        if hasattr(part, "config"):
            part.config.is_causal = False  # type: ignore[union-attr]


@torch.no_grad()
def looks_ahead(model: Any) -> bool:
    """Whether the first token's state depends on the last token: one pass over two short texts that differ in it."""
    training = model.training
    model.eval()
    size = int(model.get_input_embeddings().num_embeddings)
    ids = torch.arange(2, 8, device=model.device)[None] % size
    other = ids.clone()
    other[0, -1] = (ids[0, -1] + 1) % size
    first, second = (model(input_ids=row, attention_mask=torch.ones_like(row)).last_hidden_state for row in (ids, other))
    model.train(training)
    return not torch.equal(first[0, 0], second[0, 0])
