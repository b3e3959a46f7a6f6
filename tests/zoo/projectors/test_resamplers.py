"""Resamplers against plain versions: one sample, one head and one query at a time."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from modalign.zoo.projectors.honeybee_resampler import HoneybeeResampler
from modalign.zoo.projectors.perceiver import PerceiverProjector
from modalign.zoo.projectors.q_former import QFormerProjector


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def shaken(module):
    """Every parameter away from where it starts, so that leaving one out is seen."""
    generator = torch.Generator().manual_seed(5)
    for parameter in module.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    return module


def normed(norm, rows):
    centred = rows - rows.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + norm.eps).sqrt() * norm.weight + norm.bias


def attend(queries, keys, values, heads):
    """softmax(q Kᵀ / √d) V, query by query and head by head; (Q, W), (K, W), (K, W) -> (Q, W)."""
    width = queries.shape[1] // heads
    out = torch.zeros_like(queries)
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        for index, query in enumerate(queries[:, part]):
            powers = [math.exp(float(query @ key) / math.sqrt(width)) for key in keys[:, part]]
            for power, value in zip(powers, values[:, part], strict=True):
                out[index, part] += power / sum(powers) * value
    return out


@torch.no_grad()
def test_perceiver_is_attention_over_tokens_and_latents():
    projector = shaken(PerceiverProjector(6, 5, latents=3, depth=2, heads=2, head_width=4, then="linear").double().eval())
    features = draw(2, 7, 6)
    for sample, found in zip(features, projector(features), strict=True):
        latents = projector.latents
        for attention, feed_forward in zip(projector.attentions, projector.feed_forwards, strict=True):
            mine = normed(attention.norm_latents, latents)
            seen = torch.cat([normed(attention.norm_tokens, sample), mine])
            key_w, value_w = attention.key_value.weight[:8], attention.key_value.weight[8:]
            mixed = attend(mine @ attention.query.weight.T, seen @ key_w.T, seen @ value_w.T, 2)
            latents = latents + mixed @ attention.out.weight.T
            norm, up, _, down = feed_forward
            latents = latents + F.gelu(normed(norm, latents) @ up.weight.T) @ down.weight.T
        linear = projector.project.linear
        torch.testing.assert_close(found, normed(projector.norm, latents) @ linear.weight.T + linear.bias)


def test_perceiver_has_flamingos_sizes_and_no_bias_before_the_projection():
    with torch.device("meta"):
        projector = PerceiverProjector(1024, 4096)
    assert projector.latents.shape == (64, 1024) and len(projector.attentions) == 6
    linears = [part for name, part in projector.named_modules() if isinstance(part, nn.Linear) and not name.startswith("project")]
    assert len(linears) == 6 * 5 and all(part.bias is None for part in linears)
    assert projector.attentions[0].query.weight.shape == (512, 1024)
    assert projector.feed_forwards[0][1].weight.shape == (4096, 1024)


@torch.no_grad()
@pytest.mark.parametrize("positions", [False, True])
def test_honeybee_resampler_adds_to_normed_queries(positions):
    projector = shaken(
        HoneybeeResampler(
            6, 5, tokens_in=7, queries=3, hidden=8, layers=2, heads=2, intermediate=10, positions=positions, think_tokens=1
        )
        .double()
        .eval()
    )
    features = draw(2, 7, 6)
    for sample, found in zip(features, projector(features), strict=True):
        tokens = sample + projector.positions.table if positions else sample
        tokens, states = projector.project_in(tokens), projector.queries
        for layer in projector.layers:
            query = normed(layer.norm_queries, states)
            seen = torch.cat([query, normed(layer.norm_tokens, tokens)])
            inner = layer.attention
            (wq, wk, wv), (bq, bk, bv) = inner.in_proj_weight.chunk(3), inner.in_proj_bias.chunk(3)
            mixed = attend(query @ wq.T + bq, seen @ wk.T + bk, seen @ wv.T + bv, 2)
            states = query + mixed @ inner.out_proj.weight.T + inner.out_proj.bias
            part, x = layer.feed_forward, normed(layer.norm, states)
            gate, up = x @ part.gate.weight.T + part.gate.bias, x @ part.up.weight.T + part.up.bias
            gated = normed(part.norm, gate * torch.sigmoid(gate) * up)
            states = states + gated @ part.down.weight.T + part.down.bias
        last = projector.project_out
        wanted = torch.cat([states @ last.weight.T + last.bias, projector.think.tokens])
        torch.testing.assert_close(found, wanted)


def test_honeybee_resampler_starts_small_and_its_queries_where_they_are_told_to():
    torch.manual_seed(0)
    projector = HoneybeeResampler(24, 32, queries=32, hidden=32, layers=1, heads=2, intermediate=32)
    for weight in (projector.queries, projector.project_in.weight, projector.layers[0].attention.in_proj_weight):
        assert 0.017 < float(weight.detach().std()) < 0.023
    assert not any(bias.any() for name, bias in projector.named_parameters() if name.endswith("bias"))
    official = HoneybeeResampler(24, 32, queries=4, hidden=32, layers=1, heads=2, intermediate=32, query_std=0.0).eval()
    out = official(torch.randn(1, 5, 24))
    torch.testing.assert_close(out[0, 0].expand(4, -1), out[0])  # one and the same query, four times


def test_honeybee_resampler_has_the_norms_of_the_official_code():
    """Its configured 1e-6 reaches the norm inside the feed-forward part only; the others have torch's default."""
    layer = HoneybeeResampler(6, 5, queries=3, hidden=8, layers=1, heads=2, intermediate=10).layers[0]
    assert [norm.eps for norm in (layer.norm_queries, layer.norm_tokens, layer.norm)] == [1e-5] * 3
    assert layer.feed_forward.norm.eps == 1e-6


def test_honeybee_resampler_order_matters_with_positions_only():
    options = {"tokens_in": 7, "queries": 3, "hidden": 8, "layers": 2, "heads": 2, "intermediate": 10}
    features = draw(2, 7, 6)
    for positions in (False, True):
        projector = shaken(HoneybeeResampler(6, 5, **options, positions=positions).double().eval())
        same = torch.allclose(projector(features.flip(1)), projector(features), rtol=1e-9, atol=1e-12)
        assert same == (not positions)


def plain_q_former(projector, features, heads, cross_every):
    """A post-norm BERT of queries, written from its description, for one sample."""
    weights = dict(projector.named_parameters())

    def affine(name, rows):
        return rows @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(name, rows):
        centred = rows - rows.mean(-1, keepdim=True)
        scale = (centred.square().mean(-1, keepdim=True) + 1e-12).sqrt()
        return centred / scale * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def attention(name, states, seen):
        inner = f"{name}.attention"
        mixed = attend(affine(f"{inner}.query", states), affine(f"{inner}.key", seen), affine(f"{inner}.value", seen), heads)
        return norm(f"{name}.output.LayerNorm", states + affine(f"{name}.output.dense", mixed))

    states = norm("body.layernorm", projector.queries)
    for index in range(len(projector.body.encoder.layer)):
        name = f"body.encoder.layer.{index}"
        states = attention(f"{name}.attention", states, states)
        if index % cross_every == 0:
            states = attention(f"{name}.crossattention", states, features)
        inner = F.gelu(affine(f"{name}.intermediate_query.dense", states))
        states = norm(f"{name}.output_query.LayerNorm", states + affine(f"{name}.output_query.dense", inner))
    return affine("project", states)


@torch.no_grad()
@pytest.mark.parametrize("cross_every", [1, 2])
def test_q_former_is_a_bert_of_queries_with_cross_attention_from_the_first_layer_on(cross_every):
    projector = QFormerProjector(6, 5, queries=3, hidden=8, layers=3, heads=2, intermediate=12, cross_every=cross_every)
    projector = shaken(projector.double().eval())
    features = draw(2, 7, 6)
    for sample, found in zip(features, projector(features), strict=True):
        torch.testing.assert_close(found, plain_q_former(projector, sample, 2, cross_every))


def test_q_former_looks_at_the_picture_in_every_second_layer():
    with torch.device("meta"):
        projector = QFormerProjector(1408, 2048)
    layers = projector.body.encoder.layer
    assert [index for index, layer in enumerate(layers) if layer.has_cross_attention] == [0, 2, 4, 6, 8, 10]
    assert projector.num_tokens(257) == projector.num_tokens(1025) == 32
    assert projector.body.layernorm.eps == 1e-12 and projector.body.dropout.p == 0.1


def test_q_former_sees_the_picture():
    projector = shaken(QFormerProjector(6, 5, queries=3, hidden=8, layers=1, heads=2, intermediate=12).double().eval())
    features = draw(1, 7, 6)
    changed = features.clone()
    changed[0, 4] += 1
    assert not torch.allclose(projector(changed), projector(features))
