"""Honeybee's abstractors: the convolutional one cell by cell, the deformable one query by query and against transformers' layer."""

import math

import pytest
import torch
from torch import nn

from modalign.zoo.projectors.c_abstractor import CAbstractor
from modalign.zoo.projectors.d_abstractor import DAbstractor, DeformableDecoderLayer, uniform_points
from modalign.zoo.projectors.deformable_attention import DeformableAttention


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def shaken(module, by=0.3):
    """Every parameter away from where it starts, so that leaving one out is seen."""
    generator = torch.Generator().manual_seed(5)
    for parameter in module.parameters():
        parameter.data += by * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    return module


def normed(norm, vector):
    centred = vector - vector.mean()
    return centred / (centred.square().mean() + norm.eps).sqrt() * norm.weight + norm.bias


def silu(vector):
    return vector / (1 + torch.exp(-vector))


def each(function, cells):
    return [[function(vector) for vector in row] for row in cells]


def pointwise(conv, vector):
    out = conv.weight[:, :, 0, 0] @ vector
    return out if conv.bias is None else out + conv.bias


def depthwise(conv, cells):
    """3 x 3, one kernel per channel, zeros beyond the edge."""
    side = len(cells)
    out = [[torch.zeros_like(cells[0][0]) for _ in range(side)] for _ in range(side)]
    for row in range(side):
        for column in range(side):
            for y in (-1, 0, 1):
                for x in (-1, 0, 1):
                    if 0 <= row + y < side and 0 <= column + x < side:
                        out[row][column] = out[row][column] + conv.weight[:, 0, y + 1, x + 1] * cells[row + y][column + x]
    return out


def bottleneck(block, cells):
    """RegNet's block: 1 x 1, depthwise 3 x 3, a gate from the mean over all cells, 1 x 1, the shortcut; SiLU."""
    hidden = each(lambda v: silu(normed(block.conv1.bn, pointwise(block.conv1.conv, v))), cells)
    hidden = each(lambda v: silu(normed(block.conv2.bn, v)), depthwise(block.conv2.conv, hidden))
    mean = sum(vector for row in hidden for vector in row) / len(hidden) ** 2
    gate = torch.sigmoid(pointwise(block.se.fc2, silu(pointwise(block.se.fc1, mean))))
    hidden = each(lambda v: normed(block.conv3.bn, pointwise(block.conv3.conv, v * gate)), hidden)
    short = cells
    if not isinstance(block.downsample, nn.Identity):
        short = each(lambda v: normed(block.downsample.bn, pointwise(block.downsample.conv, v)), cells)
    return [[silu(new + old) for new, old in zip(*rows, strict=True)] for rows in zip(hidden, short, strict=True)]


def adaptive_pool(cells, side_out):
    """The mean over the cells from ⌊i n / q⌋ to ⌈(i + 1) n / q⌉."""
    side = len(cells)
    spans = [range(i * side // side_out, math.ceil((i + 1) * side / side_out)) for i in range(side_out)]
    return [[sum(cells[y][x] for y in ys for x in xs) / (len(ys) * len(xs)) for xs in spans] for ys in spans]


@torch.no_grad()
@pytest.mark.parametrize(("depth", "side_out", "norm"), [(2, 2, False), (1, 4, True), (0, 3, False)])
def test_c_abstractor_cell_by_cell(depth, side_out, norm):
    projector = CAbstractor(8, 5, tokens_in=25, queries=side_out**2, hidden=6, depth=depth, mlp_depth=3, norm=norm)
    projector = shaken(projector.double().eval())
    features = draw(1, 25, 8)
    rows = [normed(projector.norm, row) if norm else row for row in features[0]]
    rows = [row + place for row, place in zip(rows, projector.positions.table, strict=True)]
    cells = [rows[5 * i : 5 * i + 5] for i in range(5)]
    for block in projector.before.children():
        cells = bottleneck(block, cells)
    cells = adaptive_pool(cells, side_out)
    for block in projector.after.children():
        cells = bottleneck(block, cells)
    first, _, second, _, third = projector.readout
    wanted = [third(silu(second(silu(first(vector))))) for row in cells for vector in row]
    torch.testing.assert_close(projector(features)[0], torch.stack(wanted))


def test_c_abstractor_without_positions_serves_any_square():
    projector = CAbstractor(8, 5, queries=4, hidden=6, depth=1, positions=False).eval()
    for side in (2, 3, 5):
        assert projector(torch.randn(1, side * side, 8)).shape == (1, projector.num_tokens(side * side), 5) == (1, 4, 5)
    assert projector.out_grid((5, 5)) == (2, 2)


@pytest.mark.parametrize("cls", [CAbstractor, DAbstractor])
def test_published_sizes(cls):
    with torch.device("meta"):
        projector = cls(1024, 4096, tokens_in=576)
    assert (projector.num_tokens(576), projector.out_grid((24, 24))) == (144, (12, 12))


def test_abstractors_start_small():
    torch.manual_seed(0)
    convolutional = CAbstractor(32, 32, tokens_in=16, queries=4, hidden=32, depth=1)
    deformable = DAbstractor(24, 32, tokens_in=16, queries=16, hidden=32, layers=1, intermediate=32)
    for weight in (
        convolutional.before.b1.conv1.conv.weight,
        convolutional.positions.table,
        deformable.project_in.weight,
        deformable.queries,
        deformable.layers[0].attention.in_proj_weight,
    ):
        assert 0.017 < float(weight.detach().std()) < 0.023


def read(cells, side, y, x):
    """The bilinear value at (y, x) in units of cells, middle of the first at 0; zeros beyond the edge."""
    top, left = math.floor(y), math.floor(x)
    out = torch.zeros_like(cells[0])
    for row, weight_y in ((top, 1 - (y - top)), (top + 1, y - top)):
        for column, weight_x in ((left, 1 - (x - left)), (left + 1, x - left)):
            if 0 <= row < side and 0 <= column < side:
                out = out + weight_y * weight_x * cells[row * side + column]
    return out


@torch.no_grad()
def test_deformable_attention_query_by_query():
    side, heads, points, width = 4, 2, 3, 6
    attention = shaken(DeformableAttention(width, heads, points).double())
    queries, memory, references = draw(2, 5, width), draw(2, side * side, width, seed=1), torch.rand(5, 2).double()
    references[0] = torch.tensor([1.2, -0.4])  # partly outside
    found = attention(queries, memory, references, side)
    for sample in range(2):
        values = attention.value(memory[sample])
        for index, query in enumerate(queries[sample]):
            offsets = attention.offsets(query).view(heads, points, 2)
            powers = attention.weights(query).view(heads, points).exp()
            mixed = []
            for head in range(heads):
                part = values[:, head * 3 : head * 3 + 3]
                total = torch.zeros(3, dtype=torch.float64)
                for point in range(points):
                    x, y = (float(references[index, axis]) * side + float(offsets[head, point, axis]) - 0.5 for axis in (0, 1))
                    total = total + powers[head, point] / powers[head].sum() * read(part, side, y, x)
                mixed.append(total)
            torch.testing.assert_close(found[sample, index], attention.out(torch.cat(mixed)))


def test_deformable_attention_starts_as_rings_with_equal_weights():
    attention = DeformableAttention(8, 4, 2)
    offsets = attention.offsets(torch.randn(8)).view(4, 2, 2)
    wanted = [[[1, 0], [2, 0]], [[0, 1], [0, 2]], [[-1, 0], [-2, 0]], [[0, -1], [0, -2]]]
    torch.testing.assert_close(offsets, torch.tensor(wanted).float(), rtol=0, atol=1e-6)
    assert attention.weights(torch.randn(8)).view(4, 2).softmax(-1).eq(0.5).all()


def transformers_layer(width, heads, points, intermediate):
    from transformers import DeformableDetrConfig
    from transformers.models.deformable_detr.modeling_deformable_detr import DeformableDetrDecoderLayer

    config = DeformableDetrConfig(
        d_model=width,
        decoder_attention_heads=heads,
        decoder_n_points=points,
        decoder_ffn_dim=intermediate,
        num_feature_levels=1,
        use_pretrained_backbone=False,
    )
    config._attn_implementation = "eager"
    return DeformableDetrDecoderLayer(config).double().eval()


def copied(layer, theirs):
    """Our layer with the weights of theirs."""
    pairs = {
        layer.attention.out_proj: theirs.self_attn.o_proj,
        layer.deformable.offsets: theirs.encoder_attn.sampling_offsets,
        layer.deformable.weights: theirs.encoder_attn.attention_weights,
        layer.deformable.value: theirs.encoder_attn.value_proj,
        layer.deformable.out: theirs.encoder_attn.output_proj,
        layer.feed_forward[0]: theirs.mlp.fc1,
        layer.feed_forward[2]: theirs.mlp.fc2,
        layer.norms[0]: theirs.self_attn_layer_norm,
        layer.norms[1]: theirs.encoder_attn_layer_norm,
        layer.norms[2]: theirs.final_layer_norm,
    }
    for mine, other in pairs.items():
        mine.load_state_dict(other.state_dict())
    three = [theirs.self_attn.q_proj, theirs.self_attn.k_proj, theirs.self_attn.v_proj]
    layer.attention.in_proj_weight.data = torch.cat([part.weight.data for part in three])
    layer.attention.in_proj_bias.data = torch.cat([part.bias.data for part in three])
    return layer


@torch.no_grad()
def test_decoder_layer_is_transformers_with_the_same_weights():
    width, side = 8, 4
    theirs = shaken(transformers_layer(width, 2, 3, 12))
    layer = copied(DeformableDecoderLayer(width, 2, 3, 12, dropout=0.1).double().eval(), theirs)
    states, positions, memory = draw(2, 5, width), draw(2, 5, width, seed=1), draw(2, side * side, width, seed=2)
    references = torch.rand(5, 2).double()
    wanted = theirs(
        states,
        object_queries_position_embeddings=positions,
        reference_points=references.expand(2, 5, 2)[:, :, None],
        spatial_shapes=torch.tensor([[side, side]]),
        spatial_shapes_list=[(side, side)],
        level_start_index=torch.tensor([0]),
        encoder_hidden_states=memory,
    )
    torch.testing.assert_close(layer(states, positions, memory, references, side), wanted)


@torch.no_grad()
@pytest.mark.parametrize("pooled", ["position", "state"])
def test_d_abstractor_is_its_layers_on_learned_and_pooled_queries(pooled):
    projector = shaken(
        DAbstractor(
            6, 5, tokens_in=16, queries=9, hidden=8, layers=2, heads=2, points=2, intermediate=12, pooled=pooled, think_tokens=1
        )
        .double()
        .eval()
    )
    features = draw(1, 16, 6)
    memory = features[0] @ projector.project_in.weight.T + projector.project_in.bias + projector.positions.table
    cells = adaptive_pool([list(memory[4 * i : 4 * i + 4]) for i in range(4)], 3)
    picture = torch.stack([vector for row in cells for vector in row])
    states, places = (projector.queries, picture) if pooled == "position" else (picture, projector.queries)
    states = states[None]
    for layer in projector.layers:
        states = layer(states, places[None], memory[None], projector.references, 4)
    states = torch.cat([states[0], projector.think.tokens])
    torch.testing.assert_close(projector(features)[0], states @ projector.project_out.weight.T + projector.project_out.bias)


def test_reference_points_lie_on_a_uniform_grid_and_learn():
    points = uniform_points(3, 24)
    line = [0.5 / 24, 12 / 24, 23.5 / 24]
    torch.testing.assert_close(points, torch.tensor([[x, y] for y in line for x in line]))
    projector = DAbstractor(8, 8, tokens_in=16, queries=4, hidden=8, layers=1, heads=2, points=2, intermediate=12)
    torch.testing.assert_close(projector.references.data, torch.tensor([[x, y] for y in (0.125, 0.875) for x in (0.125, 0.875)]))
    assert projector.references.requires_grad
    assert isinstance(projector.project_in, nn.Identity) and isinstance(projector.project_out, nn.Identity)


def test_places_are_not_rounded_to_half_precision():
    """One bump in column 21; the place 21.297 would be 21.25 if it were computed in bfloat16 anywhere."""
    attention = DeformableAttention(1, 1, 1)
    for layer in (attention.value, attention.out):
        nn.init.ones_(layer.weight)
    attention.offsets.bias.data = torch.tensor([0.046875, 0.0])
    memory = torch.zeros(1, 24, 24, 1)
    memory[:, :, 21] = 1
    half = torch.bfloat16
    references = torch.tensor([[29 / 32, 0.5]], dtype=half)  # exact in bfloat16
    found = attention.to(half)(torch.zeros(1, 1, 1, dtype=half), memory.flatten(1, 2).to(half), references, 24)
    assert found.dtype == half
    assert abs(float(found.detach()) - (1 - 0.296875)) < 0.005
