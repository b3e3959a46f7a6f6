"""Folding adapters into the matrices beside them: a whole model without LoRA that computes the same."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..errors import AssemblyError
from ..language.lora import merge_lora
from ..language.quantized import refuse_quantized

TOLERANCE = 1e-5


def merge_adapters(model: Any) -> list[str]:
    """Folds a stack's LoRA into its language model, in place; outputs stay the same up to rounding.

    Args:
        model: A stack.

    Returns:
        Names of the matrices that changed.

    Raises:
        AssemblyError: If it has no adapter, or what came out computes something else.
    """
    if model.config.lora is None:
        raise AssemblyError("merge: the model has no LoRA to fold in; its release is whole as it is")
    refuse_quantized(model.language, "merge")
    with torch.no_grad():
        before = _probe(model)
        weights = {name: tensor.clone() for name, tensor in model.get_submodule("language_base").state_dict().items()}
        merge_lora(model.language)
        after = _probe(model)
    model.config = replace(model.config, lora=None)
    # what a float32 holds of logits of this size
    scale = max(1.0, float(before.abs().max()))
    if not torch.allclose(before, after, rtol=0, atol=TOLERANCE * scale):
        raise AssemblyError(
            f"merge: logits changed by {float((before - after).abs().max()):.2g}, more than rounding explains; nothing is written"
        )
    return [
        name
        for name, tensor in model.get_submodule("language_base").state_dict().items()
        if not torch.equal(tensor, weights[name])
    ]


def _probe(model: Any) -> Tensor:
    """Logits of a few tokens, of every twentieth word."""
    ids = torch.arange(0, model.language.vocabulary, max(1, model.language.vocabulary // 16), device=model.device)[None, :16]
    model.eval()
    return model({"ids": ids, "mask": torch.ones_like(ids, dtype=torch.bool)})["logits"]
