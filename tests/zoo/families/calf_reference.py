"""The official code's names and ours, for the golden files of CALF, and small models of the same shape."""

import torch

from modalign.zoo.registry import FAMILIES

GPT2 = {
    "model_type": "gpt2",
    "vocab_size": 64,
    "n_positions": 64,
    "n_embd": 64,
    "n_head": 4,
    "n_layer": 3,
    "bos_token_id": None,
    "eos_token_id": None,
}
LLAMA = {
    "model_type": "llama",
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
}
_PLAIN = {
    "in_layer.linear.": "tokens.linear.",
    "in_layer.transformer_encoder.layers.0.": "tokens.mixer.",
    "in_layer.cross_attention.": "match.attention.",
    "time_proj.": "series_features.",
    "text_proj.": "text_features.",
    "out_layer.": "head.linear.",
}


def calf(**settings):
    """A small CALF with random weights, the golden case unless told otherwise."""
    made = {
        "look_back": 32,
        "horizon": 16,
        "llm": "random",
        "language": {"name": None, "architecture": GPT2, "blocks": 2},
        "lora": {"rank": 4, "alpha": 8},
        "heads": 4,
        "dictionary": 24,
        "strict_reference": True,
    }
    torch.manual_seed(0)
    return FAMILIES.get("calf").from_settings(made | settings).eval()


def our_name(name):
    """An official name in our state dict; None for the token tables, which are not kept."""
    for theirs, ours in _PLAIN.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    text = name.startswith("gpt2_text.")
    inner = name.removeprefix("gpt2_text.").removeprefix("gpt2.base_model.model.")
    if inner.startswith("wte."):
        return None
    trains = inner.startswith("wpe.") or (not text and (".lora_" in inner or "ln_" in inner))
    if not trains:
        return "pretrained." + inner.replace(".base_layer.", ".")
    return ("text_language.model." if text else "language.model.") + inner


def load_official(model, weights, dictionary):
    """Fills a model with an official state dict; both branches' frozen matrices must be the same ones."""
    state = {"dictionary.rows": torch.as_tensor(dictionary)}
    for name, value in weights.items():
        if (ours := our_name(name)) is not None:
            tensor = torch.as_tensor(value)
            assert ours not in state or torch.equal(state[ours], tensor)
            state[ours] = tensor
    model.load_state_dict(state)
    return model
