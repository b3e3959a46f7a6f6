"""A language model with its matrices in 4 bits, for LoRA beside them.

Source: QLoRA (Dettmers et al. 2023, arXiv 2305.14314): NF4 with double quantisation; the layers are bitsandbytes'. Embeddings, norms and
the output layer keep their precision.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..errors import AssemblyError, RecipeError


def nf4() -> dict[str, Any]:
    """Arguments of `from_pretrained` that load a model so.

    Raises:
        RecipeError: If bitsandbytes is not installed.
    """
    import importlib.util

    from transformers import BitsAndBytesConfig

    if importlib.util.find_spec("bitsandbytes") is None:
        raise RecipeError("model.language.quantize: nf4 needs bitsandbytes: pip install 'modalign[quantized]'")
    compute = torch.bfloat16 if torch.cuda.is_available() else torch.float32
    return {
        "quantization_config": BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=compute
        )
    }


def is_quantized(module: nn.Module) -> bool:
    """Whether a module holds matrices in 4 bits."""
    return any(type(part).__name__ == "Linear4bit" for part in module.modules())


def refuse_quantized(module: nn.Module, what: str) -> None:
    """Refuses what needs the matrices themselves.

    Args:
        module: The model.
        what: What was asked for.

    Raises:
        AssemblyError: Saying how to do it.
    """
    if is_quantized(module):
        raise AssemblyError(
            f"{what}: the language model's matrices are held in 4 bits; load the release with language.quantize left out of its "
            "config.json, where its base is named, and do it there"
        )
