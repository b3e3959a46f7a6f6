"""FSCA against an independent slow version in loops: three segments, classification with and without examples, short-term."""

import math

import numpy as np
import pytest
import torch

from modalign.zoo.families.fsca.model import FscaModel

D, HEADS, BLOCKS = 16, 2, 2
GPT2 = {"model_type": "gpt2", "vocab_size": 20, "n_positions": 64, "n_embd": D, "n_head": HEADS, "n_layer": 3}
COMMON = {
    "look_back": 24,
    "horizon": 5,
    "language": {"name": None, "architecture": GPT2, "blocks": BLOCKS},
    "llm": "random",
    "patch_size": 4,
    "stride": 3,
    "prompt_ids": [3, 1, 4],
    "fine_points": [0, 1, 2],
    "coarse_points": [0, 2],
    "read_width": 6,
    "coarse_width": 5,
    "coarse_weight": 0.7,
}


def built(**settings):
    torch.manual_seed(0)
    model = FscaModel.from_settings(COMMON | settings).eval().double()
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    model.prompt = torch.randn(3, D, generator=generator, dtype=torch.float64)
    return model


def numbers(model):
    return {name.replace("pretrained.", "backbone.model."): value.detach().numpy() for name, value in model.state_dict().items()}


def layer_norm(x, weight, bias):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * weight + bias


def block(w, number, x):
    """GPT-2's block on one sequence (T, D)."""
    p = f"backbone.model.h.{number}."
    h = layer_norm(x, w[p + "ln_1.weight"], w[p + "ln_1.bias"]) @ w[p + "attn.c_attn.weight"] + w[p + "attn.c_attn.bias"]
    out, size = np.zeros_like(x), D // HEADS
    for head in range(HEADS):
        q, k, v = (h[:, part * D + head * size :][:, :size] for part in range(3))
        for t in range(len(x)):
            scores = np.array([q[t] @ k[u] / math.sqrt(size) for u in range(t + 1)])
            share = np.exp(scores - scores.max())
            out[t, head * size : (head + 1) * size] = share / share.sum() @ v[: t + 1]
    x = x + out @ w[p + "attn.c_proj.weight"] + w[p + "attn.c_proj.bias"]
    h = layer_norm(x, w[p + "ln_2.weight"], w[p + "ln_2.bias"]) @ w[p + "mlp.c_fc.weight"] + w[p + "mlp.c_fc.bias"]
    h = 0.5 * h * (1 + np.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)))
    return x + h @ w[p + "mlp.c_proj.weight"] + w[p + "mlp.c_proj.bias"]


def gcn(w, name, x, edges):
    """`edges`: (source, target, weight)."""
    out, degree = np.zeros_like(x), [1 + sum(s for _, t, s in edges if t == i) for i in range(len(x))]
    for i in range(len(x)):
        total = x[i] / degree[i]
        for source, target, strength in edges:
            if target == i:
                total = total + strength / math.sqrt(degree[source] * degree[i]) * x[source]
        out[i] = w[f"alignment.{name}.weight"] @ total + w[f"alignment.{name}.bias"]
    return out


def patch_tokens(w, series):
    """Series (L, M) -> tokens (N, D)."""
    padded = np.concatenate([series, np.repeat(series[-1:], 3, 0)])
    patches = [padded[start : start + 4].reshape(-1) for start in range(0, len(padded) - 3, 3)]
    kernel, count, out = w["tokens.conv.weight"], len(patches), []
    for n in range(count):
        token = sum(kernel[:, :, 1 + step] @ patches[(n + step) % count] for step in (-1, 0, 1))
        position = [math.sin(n / 10000 ** (i / D)) if i % 2 == 0 else math.cos(n / 10000 ** ((i - 1) / D)) for i in range(D)]
        out.append(token + np.array(position))
    return out


def weighted(groups, tokens):
    """Groups of (source, target) pairs -> edges with cos + 1, summing to 1 within a group."""
    edges = []
    for group in groups:
        raw = [1 + tokens[s] @ tokens[t] / np.linalg.norm(tokens[s]) / np.linalg.norm(tokens[t]) for s, t in group]
        edges += [(s, t, strength / sum(raw)) for (s, t), strength in zip(group, raw, strict=True)]
    return edges


def run(w, pieces, groups, coarse_edges, coarse, share):
    """Last states of a sequence.

    Args:
        w: Weights.
        pieces: Tokens of each node.
        groups: Fine edges by group.
        coarse_edges: Pairs of nodes.
        coarse: Coarse states (K, D).
        share: Node -> what a token of it gets of its coarse state.
    """
    h = np.stack([token for piece in pieces for token in piece])
    owner = [node for node, piece in enumerate(pieces) for _ in piece]
    edges = weighted(groups, h)
    h, low = h + w["backbone.model.wpe.weight"][: len(h)], coarse + w["backbone.model.wpe.weight"][: len(coarse)]
    for k in range(BLOCKS + 1):
        h = gcn(w, "fine", h, edges)
        if k in (0, 2):
            low = gcn(w, "coarse", low, [(s, t, 1.0) for s, t in coarse_edges])
            for t, node in enumerate(owner):
                read = share[node] * low[node, :5]
                h[t] = h[t] + 0.7 * (w["alignment.to_fine.weight"] @ read + w["alignment.to_fine.bias"])
        if k < BLOCKS:
            h, low = block(w, k, h), block(w, k, low)
    return layer_norm(h, w["backbone.model.ln_f.weight"], w["backbone.model.ln_f.bias"])


def linear(w, name, tokens, length):
    flat = np.concatenate([*tokens, *[np.zeros(D)] * (length - len(tokens))])
    return w[f"alignment.coarse_nodes.{name}.weight"] @ flat + w[f"alignment.coarse_nodes.{name}.bias"]


#: 24 steps, patches of 4 every 3: 8 tokens, in three segments 2, 2, 4; a prompt has 3: 0-1 2-4 5-6 7-9 10-13 14-16
THREE_GROUPS = [
    [(0, 2), (1, 2)],
    [(4, 5), (4, 6)],
    [(s, 7) for s in (0, 1, 5, 6)],
    [(9, t) for t in (10, 11, 12, 13)],
    [(s, 14) for s in (0, 1, 5, 6, 10, 11, 12, 13)],
]
THREE_COARSE = [(0, 1), (1, 2), (0, 3), (2, 3), (3, 4), (0, 5), (2, 5), (4, 5)]
#: in two segments 4, 4: 0-3 4-6 7-10 11-13
TWO_GROUPS = [
    [(s, 4) for s in range(4)],
    [(6, t) for t in range(7, 11)],
    [(s, 11) for s in (0, 1, 2, 3, 7, 8, 9, 10)],
]
TWO_COARSE = [(0, 1), (1, 2), (0, 3), (2, 3)]


def slow_forecast(model, window, sizes, groups, coarse_edges, *, official=False):
    w, out = numbers(model), []
    for channel in window.T:
        mean, deviation = channel.mean(), math.sqrt(channel.var() + 1e-5)
        tokens, prompt = patch_tokens(w, ((channel - mean) / deviation)[:, None]), list(w["prompt"])
        parts = [tokens[sum(sizes[:n]) : sum(sizes[: n + 1])] for n in range(len(sizes))]
        pieces = [piece for part in parts for piece in (part, prompt)]
        coarse = np.stack([v for part in parts for v in (linear(w, "segment", part, 4), linear(w, "prompt", prompt, 3))])
        share = [1.0 if official else 1 / len(piece) for piece in pieces]
        states = run(w, pieces, groups, coarse_edges, coarse, share)
        read = states[-8:] if official else states[-(sizes[-1] + 3) :]
        flat = np.array([read[t, d] for d in range(6) for t in range(len(read))])
        out.append((w["head.linear.weight"] @ flat + w["head.linear.bias"]) * deviation + mean)
    return np.stack(out, 1)


@pytest.mark.parametrize("task", ["forecast", "short_term"])
def test_three_segments(task):
    model, values = built(segments=3, task=task), torch.randn(2, 24, 2, dtype=torch.float64)
    found = model({"values": values})["prediction"].detach().numpy()
    for row in range(2):
        expected = slow_forecast(model, values[row].numpy(), (2, 2, 4), THREE_GROUPS, THREE_COARSE)
        np.testing.assert_allclose(found[row], expected, rtol=1e-5, atol=1e-5)


def test_short_term_as_the_official_code_has_it():
    """Its assignment is not divided by the number of tokens, and its convolutions do not train."""
    model, values = built(task="short_term", strict_reference=True), torch.randn(1, 24, 1, dtype=torch.float64)
    found = model({"values": values})["prediction"].detach().numpy()[0]
    expected = slow_forecast(model, values[0].numpy(), (4, 4), TWO_GROUPS, TWO_COARSE, official=True)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert {model.role_of(f"alignment.{name}.weight") for name in ("fine", "coarse")} == {"frozen"}
    assert built(task="short_term").role_of("alignment.fine.weight") == "projector"


CLASSES = {"target": ["a", "b"], "labels": ["yes", "no"]}


def class_logits(w, states):
    x = np.array([states[t, d] for t in range(len(states)) for d in range(6)])
    x = 0.5 * x * (1 + np.array([math.erf(v / math.sqrt(2)) for v in x]))
    x = layer_norm(x, w["head.norm.weight"], w["head.norm.bias"])
    return w["head.linear.weight"] @ x + w["head.linear.bias"]


def test_classification_without_examples():
    """8 patches of both channels, 3 tokens of prompt."""
    model, values = built(task="classification", series=CLASSES), torch.randn(2, 24, 2, dtype=torch.float64)
    found, w = model({"values": values})["logits"].detach().numpy(), numbers(model)
    for row in range(2):
        tokens, prompt = patch_tokens(w, values[row].numpy()), list(w["prompt"])
        coarse = np.stack([linear(w, "segment", tokens, 8), linear(w, "prompt", prompt, 3)])
        states = run(w, [tokens, prompt], [[(s, 8) for s in range(8)]], [(0, 1)], coarse, [1 / 8, 1 / 3])
        np.testing.assert_allclose(found[row], class_logits(w, states), rtol=1e-5, atol=1e-5)


def test_classification_with_two_labelled_examples():
    """Example, prompt, label (12 tokens), the same again, the series in question and its prompt."""
    model = built(task="classification", series=CLASSES, demonstrations=True, label_ids=[7, 9])
    model.labels, examples = torch.randn(2, D, dtype=torch.float64), torch.randn(2, 24, 2, dtype=torch.float64)
    model.take_demonstrations(examples, ["k0", "k1"])
    values = torch.randn(2, 24, 2, dtype=torch.float64)
    found, w = model({"values": values})["logits"].detach().numpy(), numbers(model)
    groups = [
        [(s, 8) for s in range(8)],
        [(10, 11)],
        [(12 + s, 20) for s in range(8)],
        [(22, 23)],
        [(24 + s, 32) for s in range(8)],
    ]
    for row in range(2):
        series, prompt, label = [*examples.numpy(), values[row].numpy()], list(w["prompt"]), w["labels"]
        tokens = [patch_tokens(w, one) for one in series]
        pieces = [tokens[0], prompt, [label[0]], tokens[1], prompt, [label[1]], tokens[2], prompt]
        asked = linear(w, "prompt", prompt, 3)
        first, second, third = (linear(w, "segment", one, 8) for one in tokens)
        coarse = np.stack([first, asked, label[0], second, asked, label[1], third, asked])
        states = run(w, pieces, groups, [(0, 1), (1, 2), (3, 4), (4, 5), (6, 7)], coarse, [1 / len(piece) for piece in pieces])
        np.testing.assert_allclose(found[row], class_logits(w, states), rtol=1e-5, atol=1e-5)
