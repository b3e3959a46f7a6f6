"""CALF written a second time, from its description alone: numpy, float64, loops over samples, channels and heads."""

import numpy as np


def linear(x, weight, bias=None):
    return x @ weight.T + (0 if bias is None else bias)


def softmax(rows):
    raised = np.exp(rows - rows.max(-1, keepdims=True))
    return raised / raised.sum(-1, keepdims=True)


def layer_norm(x, weight, bias, eps=1e-5):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt(np.square(centred).mean(-1, keepdims=True) + eps) * weight + bias


def attend(query, key, value, heads, causal=False):
    """One sample: (T, D), (S, D), (S, D)."""
    width = query.shape[1] // heads
    parts = []
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        scores = query[:, part] @ key[:, part].T / np.sqrt(width)
        if causal:
            scores = np.where(np.tril(np.ones_like(scores)) > 0, scores, -np.inf)
        parts.append(softmax(scores) @ value[:, part])
    return np.concatenate(parts, 1)


def multihead(w, prefix, query, memory, heads):
    """torch's MultiheadAttention of one sample."""
    q, k, v = np.split(w[f"{prefix}in_proj_weight"], 3)
    bq, bk, bv = np.split(w[f"{prefix}in_proj_bias"], 3)
    mixed = attend(linear(query, q, bq), linear(memory, k, bk), linear(memory, v, bv), heads)
    return linear(mixed, w[f"{prefix}out_proj.weight"], w[f"{prefix}out_proj.bias"])


def channel_tokens(w, x, heads):
    """x (C, L) -> (C, D)."""
    t = linear(x, w["tokens.linear.weight"], w["tokens.linear.bias"])
    t = t + multihead(w, "tokens.mixer.self_attn.", t, t, heads)
    t = layer_norm(t, w["tokens.mixer.norm1.weight"], w["tokens.mixer.norm1.bias"])
    hidden = np.maximum(linear(t, w["tokens.mixer.linear1.weight"], w["tokens.mixer.linear1.bias"]), 0)
    t = t + linear(hidden, w["tokens.mixer.linear2.weight"], w["tokens.mixer.linear2.bias"])
    return layer_norm(t, w["tokens.mixer.norm2.weight"], w["tokens.mixer.norm2.bias"])


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def gpt2(w, tokens, heads, blocks, lora_scale):
    """The states of one branch; its own norms and positions where it has them, the frozen ones elsewhere. GPT-2 stores (in, out)."""
    branch = "text_language.model." if lora_scale is None else "language.model."

    def of(name):
        return w.get(branch + name, w.get("pretrained." + name))

    def block(h, number):
        here = f"h.{number}."
        x = layer_norm(h, of(here + "ln_1.weight"), of(here + "ln_1.bias"))
        fused = x @ of(here + "attn.c_attn.weight") + of(here + "attn.c_attn.bias")
        if lora_scale is not None:
            low, high = (of(f"{here}attn.c_attn.lora_{side}.default.weight") for side in "AB")
            fused = fused + lora_scale * linear(linear(x, low), high)
        mixed = attend(*np.split(fused, 3, axis=1), heads, causal=True)
        h = h + mixed @ of(here + "attn.c_proj.weight") + of(here + "attn.c_proj.bias")
        x = layer_norm(h, of(here + "ln_2.weight"), of(here + "ln_2.bias"))
        x = gelu(x @ of(here + "mlp.c_fc.weight") + of(here + "mlp.c_fc.bias"))
        return h + x @ of(here + "mlp.c_proj.weight") + of(here + "mlp.c_proj.bias")

    states = [tokens + of("wpe.weight")[: len(tokens)]]
    for number in range(blocks):
        states.append(block(states[-1], number))
    states[-1] = layer_norm(states[-1], of("ln_f.weight"), of("ln_f.bias"))
    return states


def branches(w, x, heads, blocks, lora_scale):
    """x (C, L), normalised -> result and states of both branches, with the residual in the last state."""
    tokens = channel_tokens(w, x, heads)
    text = multihead(w, "match.attention.", tokens, w["dictionary.rows"], heads)
    found = []
    for start, scale in ((tokens, lora_scale), (text, None)):
        states = gpt2(w, start, heads, blocks, scale)
        states[-1] = states[-1] + start
        found.append(states)
    return found


def weights_of(model):
    return {name: value.double().numpy() for name, value in model.state_dict().items()}
