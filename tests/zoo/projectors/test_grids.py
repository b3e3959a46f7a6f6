"""Projectors on square grids, against loops over cells and against what others make of the same weights."""

import math

import pytest
import torch
from torch import nn

from modalign.zoo.errors import AssemblyError
from modalign.zoo.projectors.pixel_shuffle import PixelShuffleProjector, space_to_depth
from modalign.zoo.projectors.pooler import PoolerProjector
from modalign.zoo.projectors.spatial_pool import SpatialPoolProjector


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def on_grid(features, side):
    """(V, D) -> rows of columns of vectors."""
    return [[features[row * side + column] for column in range(side)] for row in range(side)]


def without_projection(**options):
    """A pool alone: its projection is the identity matrix."""
    projector = SpatialPoolProjector(3, 3, then="linear", **options).double().eval()
    nn.init.eye_(projector.project.linear.weight)
    nn.init.zeros_(projector.project.linear.bias)
    return projector


def test_pooler_is_a_sum_over_each_two_by_two_cell():
    projector = PoolerProjector(3, 4).double().eval()
    features = draw(2, 16, 3)
    kernel, linear = projector.pool.weight, projector.project[1]
    for sample, found in zip(features, projector(features), strict=True):
        cells = on_grid(sample, 4)
        for row in range(2):
            for column in range(2):
                summed = projector.pool.bias.clone()
                for y in range(2):
                    for x in range(2):
                        summed = summed + kernel[:, :, y, x] @ cells[2 * row + y][2 * column + x]
                wanted = linear.weight @ nn.functional.gelu(summed) + linear.bias
                torch.testing.assert_close(found[2 * row + column], wanted)


def test_pooler_refuses_an_odd_side():
    projector = PoolerProjector(3, 4)
    assert (projector.num_tokens(576), projector.out_grid((24, 24))) == (144, (12, 12))
    for refused in (
        lambda: projector.num_tokens(729),
        lambda: projector.out_grid((27, 27)),
        lambda: projector(torch.zeros(1, 729, 3)),
    ):
        with pytest.raises(
            AssemblyError, match=r"pooler halves the side of a grid, and 27 is odd; use .*'spatial_pool' with stride 2"
        ):
            refused()


def windows(side, stride, edge):
    """The rows (or columns) that each window covers."""
    count = math.ceil(side / stride) if edge == "keep" else side // stride
    return [[place for place in range(index * stride, (index + 1) * stride) if place < side] for index in range(count)]


@pytest.mark.parametrize("edge", ["keep", "drop"])
@pytest.mark.parametrize(("side", "stride"), [(4, 2), (5, 2), (5, 3), (7, 4), (3, 1)])
@pytest.mark.parametrize("mode", ["average", "max", "conv"])
def test_windows_are_pooled_one_by_one(mode, side, stride, edge):
    projector, features = without_projection(mode=mode, stride=stride, edge=edge), draw(2, side * side, 3)
    covered = windows(side, stride, edge)
    found = projector(features)
    assert found.shape[1] == len(covered) ** 2 == projector.num_tokens(side * side)
    for sample in range(2):
        cells = on_grid(features[sample], side)
        for index, (rows, columns) in enumerate((rows, columns) for rows in covered for columns in covered):
            inside = torch.stack([cells[y][x] for y in rows for x in columns])
            if mode == "average":
                wanted = inside.sum(0) / len(inside)
            elif mode == "max":
                wanted = torch.stack([max(values) for values in inside.T])
            else:
                kernel = projector.conv.weight
                wanted = projector.conv.bias + sum(
                    kernel[:, :, y - rows[0], x - columns[0]] @ cells[y][x] for y in rows for x in columns
                )
            torch.testing.assert_close(found[sample, index], wanted)


def between(cells, side, y, x):
    """The bilinear value at (y, x) in units of cells, middle of the first at 0; beyond the edge the edge's own."""
    y, x = min(max(y, 0), side - 1), min(max(x, 0), side - 1)
    top, left = math.floor(y), math.floor(x)
    bottom, right = min(top + 1, side - 1), min(left + 1, side - 1)
    upper = (1 - (x - left)) * cells[top][left] + (x - left) * cells[top][right]
    lower = (1 - (x - left)) * cells[bottom][left] + (x - left) * cells[bottom][right]
    return (1 - (y - top)) * upper + (y - top) * lower


@pytest.mark.parametrize("edge", ["keep", "drop"])
@pytest.mark.parametrize(("side", "stride"), [(4, 2), (5, 2), (5, 3), (3, 1)])
def test_bilinear_reads_between_cells(side, stride, edge):
    projector, features = without_projection(stride=stride, edge=edge), draw(1, side * side, 3)
    cells, out = on_grid(features[0], side), len(windows(side, stride, edge))
    scale = side / out
    wanted = [
        between(cells, side, (row + 0.5) * scale - 0.5, (column + 0.5) * scale - 0.5)
        for row in range(out)
        for column in range(out)
    ]
    torch.testing.assert_close(projector(features)[0], torch.stack(wanted))


def test_halving_an_even_grid_bilinearly_is_averaging():
    features = draw(2, 36, 3)
    torch.testing.assert_close(without_projection()(features), without_projection(mode="average")(features))


def test_spatial_pool_counts_of_onevisions_video():
    projector = SpatialPoolProjector(3, 4)
    assert (projector.num_tokens(729), projector.out_grid((27, 27))) == (196, (14, 14))
    assert SpatialPoolProjector(3, 4, mode="average", edge="drop").num_tokens(729) == 169
    with pytest.raises(
        AssemblyError, match=r"spatial_pool: no window of 4 fits into a grid of side 3; take a smaller stride or edge keep"
    ):
        SpatialPoolProjector(3, 4, stride=4, edge="drop").num_tokens(9)


@pytest.mark.parametrize("mode", ["average", "conv"])
def test_pool_after_the_projection_is_the_pool_of_projected_tokens(mode):
    projector = SpatialPoolProjector(3, 5, mode=mode, pool="after").double().eval()
    features = draw(2, 16, 3)
    assert (projector.conv is None) == (mode == "average")
    cells = on_grid(projector.project(features)[1], 4)
    inside = torch.stack([cells[y][x] for y in (2, 3) for x in (0, 1)])
    wanted = (
        inside.mean(0)
        if mode == "average"
        else projector.conv.bias + (projector.conv.weight.flatten(2).permute(2, 0, 1) @ inside[..., None]).sum((0, 2))
    )
    torch.testing.assert_close(projector(features)[1, 2], wanted)
    before = SpatialPoolProjector(3, 5, mode="average").double().eval()
    before.load_state_dict(projector.state_dict(), strict=False)
    assert not torch.allclose(before(features), projector(features))


def test_space_to_depth_puts_a_cells_tokens_behind_each_other():
    numbers = torch.arange(36.0).view(1, 1, 6, 6) + torch.tensor([0.0, 0.5]).view(1, 2, 1, 1)
    found = space_to_depth(numbers, 3)
    assert found.shape == (1, 4, 18)
    for index, (top, left) in enumerate([(0, 0), (0, 3), (3, 0), (3, 3)]):
        wanted = [6 * (top + y) + left + x + half for y in range(3) for x in range(3) for half in (0, 0.5)]
        assert found[0, index].tolist() == wanted


def test_space_to_depth_has_the_order_of_internvl_and_of_nanovlms_kin():
    from transformers.models.idefics3.modeling_idefics3 import Idefics3Connector
    from transformers.models.internvl.modeling_internvl import InternVLModel

    maps = draw(2, 5, 6, 6)
    tokens = maps.flatten(2).transpose(1, 2).contiguous()
    theirs = InternVLModel.pixel_shuffle(None, tokens.unflatten(1, (6, 6)), 0.5).flatten(1, 2)
    assert torch.equal(space_to_depth(maps, 2), theirs)
    assert torch.equal(space_to_depth(maps, 3), Idefics3Connector.pixel_shuffle(None, tokens, 3))


@pytest.mark.parametrize(
    ("options", "kinds"),
    [
        ({}, ["LayerNorm", "Linear", "GELU", "Linear"]),
        ({"norm": False}, ["Linear", "GELU", "Linear"]),
        ({"then": "linear"}, ["Linear"]),
        ({"then": "linear", "norm": True}, ["LayerNorm", "Linear"]),
    ],
)
def test_pixel_shuffle_projects_what_it_shuffled(options, kinds):
    projector = PixelShuffleProjector(3, 4, **options).double().eval()
    layers = [part for part in projector.modules() if not list(part.children()) and not isinstance(part, nn.Identity)]
    assert [type(layer).__name__ for layer in layers] == kinds
    if options.get("then") == "linear":
        assert layers[-1].bias is None
    features = draw(2, 16, 3)
    for sample, found in zip(features, projector(features), strict=True):
        cells = on_grid(sample, 4)
        for row in range(2):
            for column in range(2):
                wide = torch.cat([cells[2 * row + y][2 * column + x] for y in range(2) for x in range(2)])
                for layer in layers:
                    wide = layer(wide)
                torch.testing.assert_close(found[2 * row + column], wide)


def test_pixel_shuffle_counts_and_refusals():
    projector = PixelShuffleProjector(3, 4)
    assert (projector.num_tokens(1024), projector.out_grid((32, 32))) == (256, (16, 16))
    for refused in (lambda: projector.num_tokens(729), lambda: projector(torch.zeros(1, 729, 3))):
        with pytest.raises(
            AssemblyError, match=r"pixel_shuffle: the factor 2 does not divide the grid's side 27; take a divisor of it"
        ):
            refused()
