"""Pictures of any resolution: counts of tokens, tiles, unpadding, pixels, against published counts, slow versions, transformers."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers.image_processing_utils import select_best_resolution
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.llava_next.modeling_llava_next import (
    get_anyres_image_grid_shape,
    image_size_to_num_patches,
    unpad_image,
)

from modalign.zoo.encoders.image.preprocess import ImagePreprocess
from modalign.zoo.errors import AssemblyError, RecipeError
from modalign.zoo.stack.anyres import NEXT_GRIDS, ONEVISION_GRIDS, best_grid, fitted_size, shrunk, unpadded
from modalign.zoo.stack.pictures import PictureConfig, PictureLayout
from modalign.zoo.stack.splice import lay_out

from .written import CLIP_MEAN, CLIP_STD, photo

ONEVISION = [list(grid) for grid in ONEVISION_GRIDS]
#: (width, height) -> tokens with S = 336 and 24 by 24 patches, the learned line ends among them
NEXT_COUNTS = {
    (336, 336): 1176,
    (640, 480): 2340,
    (480, 640): 2352,
    (1000, 300): 2182,
    (300, 1000): 2232,
    (672, 672): 2928,
    (1024, 768): 2340,
    (500, 375): 2340,
    (1920, 1080): 1948,
}
#: the same for S = 384 and 27 by 27 patches, shrunk to nine tiles' worth
ONEVISION_COUNTS = {
    (384, 384): 1485,
    (640, 480): 2929,
    (1024, 768): 4725,
    (1920, 1080): 7269,
    (2304, 2304): 7371,
    (4000, 3000): 7309,
}
SIDES = st.integers(1, 3000)
SIZES = st.tuples(SIDES, SIDES)
GRIDS = st.sampled_from([list(NEXT_GRIDS), list(ONEVISION_GRIDS), [(1, 1)], [(3, 2), (2, 3)]])


def preprocess(side):
    return ImagePreprocess(side, CLIP_MEAN, CLIP_STD)


def layout(side, patches, config, **more):
    return PictureLayout(config, preprocess(side), patches * patches, (patches, patches), **more)


NEXT = layout(336, 24, PictureConfig("anyres"), newline=True)
ONE = layout(384, 27, PictureConfig("anyres", ONEVISION, 9, "whole"), newline=True)


@pytest.mark.parametrize("size", NEXT_COUNTS)
def test_tokens_of_llava_next(size):
    assert NEXT.tokens([size]) == [NEXT_COUNTS[size]]


@pytest.mark.parametrize("size", ONEVISION_COUNTS)
def test_tokens_of_onevision(size):
    assert ONE.tokens([size]) == [ONEVISION_COUNTS[size]]


def test_a_large_map_of_onevision_is_shrunk_as_published():
    assert ONE.map_of((1920, 1080)).final == (60, 108)
    assert shrunk(75, 135, 9 * 729) == (60, 108) and shrunk(81, 81, 9 * 729) is None
    rows = math.isqrt(9 * 729)
    assert shrunk(rows, math.floor(1.21 * rows), 9 * 729) is None and shrunk(rows, math.ceil(1.22 * rows), 9 * 729)


def test_pictures_that_share_a_conversation():
    two = [(640, 480), (480, 640)]
    assert NEXT.tokens(two) == [2340, 2352] and NEXT.tiles(two) == [5, 5]
    assert ONE.tokens(two) == [730, 730] and ONE.tiles(two) == [1, 1], "whole pictures alone, each with a line end"
    assert ONE.tiles(two[:1]) == [5] and len(ONE([photo(64, 48)])[0]) == 1 + math.prod(best_grid((64, 48), ONEVISION_GRIDS, 384))
    assert [len(tiles) for tiles in ONE([photo(64, 48), photo(8, 9)])] == [1, 1]


@pytest.mark.parametrize("mode", ["own", "pad", "squash"])
def test_without_tiles_every_picture_has_the_same_tokens(mode):
    found = layout(336, 24, PictureConfig(mode), extra=3)
    assert found.tokens([(1, 900), (640, 480)]) == [579, 579] and found.tiles([(1, 900), (640, 480)]) == [1, 1]
    assert found.map_of((640, 480)) is None


def test_tokens_of_a_method_are_counted_once_per_picture():
    found = layout(336, 24, PictureConfig("anyres"), newline=True, extra=5)
    assert found.tokens([(640, 480)]) == [2345]
    assert layout(336, 24, PictureConfig("anyres"), newline=False).tokens([(336, 336)]) == [576 + 576]


# grids


def slow_grid(size, grids, side):
    """By exact fractions, over all candidates at once."""
    seen = []
    for columns, rows in grids:
        scale = min(Fraction(columns * side, size[0]), Fraction(rows * side, size[1]))
        area = math.floor(size[0] * scale) * math.floor(size[1] * scale)
        effective = min(area, size[0] * size[1])
        seen.append((-effective, columns * rows * side * side - effective))
    return grids[seen.index(min(seen))]


@given(SIZES, GRIDS, st.sampled_from([14, 336, 384]))
@settings(max_examples=300, deadline=None)
def test_the_grid_is_the_one_of_transformers(size, grids, side):
    pinpoints = [[rows * side, columns * side] for columns, rows in grids]
    rows, columns = get_anyres_image_grid_shape([size[1], size[0]], pinpoints, side)
    assert best_grid(size, grids, side) == (columns, rows)
    config = PictureConfig("anyres", [list(grid) for grid in grids])
    assert layout(side, 2, config).tiles([size]) == [image_size_to_num_patches([size[1], size[0]], pinpoints, side)]


@given(st.tuples(st.integers(1, 60), st.integers(1, 60)), GRIDS)
@settings(max_examples=300, deadline=None)
def test_the_grid_is_the_slow_versions_but_for_rounding(size, grids):
    side = 64
    found, wanted = best_grid(size, grids, side), slow_grid(size, grids, side)
    if found != wanted:  # a float just below a whole number is cut to the one before: the published code does that too
        scales = [min(grid[0] * side / size[0], grid[1] * side / size[1]) for grid in grids]
        floats = [int(size[k] * s) for s in scales for k in (0, 1)]
        exact = [
            math.floor(size[k] * min(Fraction(g[0] * side, size[0]), Fraction(g[1] * side, size[1])))
            for g in grids
            for k in (0, 1)
        ]
        assert floats != exact


def test_of_equal_grids_the_least_empty_and_then_the_first_is_taken():
    assert best_grid((336, 336), NEXT_GRIDS, 336) == (1, 2)
    assert best_grid((336, 336), [(2, 1), (1, 2)], 336) == (2, 1)
    assert best_grid((336, 336), [(2, 2), (1, 2)], 336) == (1, 2), "as much is seen, with less around it"
    assert select_best_resolution((336, 336), [[672, 672], [672, 336]]) == (672, 336)


@given(SIZES, GRIDS)
@settings(max_examples=200, deadline=None)
def test_a_picture_fills_its_grid_in_one_direction(size, grids):
    side, grid = 336, best_grid(size, grids, 336)
    wide, high = fitted_size(size, grid, side)
    whole = (grid[0] * side, grid[1] * side)
    assert wide == whole[0] or high == whole[1]
    assert 1 <= wide <= whole[0] and 1 <= high <= whole[1]
    exact = min(Fraction(whole[0], size[0]), Fraction(whole[1], size[1]))
    assert abs(wide - size[0] * exact) <= 1 and abs(high - size[1] * exact) <= 1


# unpadding


@given(SIZES, st.integers(1, 80), st.integers(1, 80))
@settings(max_examples=500, deadline=None)
def test_unpadding_is_that_of_transformers(size, rows, columns):
    places = torch.arange(rows * columns).view(1, rows, columns)
    wanted = unpad_image(places, (size[1], size[0]))[0]
    assert torch.equal(places[0][unpadded(size, rows, columns)], wanted)


@given(SIZES, st.integers(1, 80), st.integers(1, 80))
@settings(max_examples=300, deadline=None)
def test_unpadding_cuts_what_is_empty_and_the_same_on_both_sides(size, rows, columns):
    """A slow version: in exact fractions, row by row from outside in."""
    down, across = (kept for kept in unpadded(size, rows, columns))
    if Fraction(size[0], size[1]) > Fraction(columns, rows):
        assert across == slice(0, columns)
        whole, kept, (start, stop) = rows, Fraction(size[1] * columns, size[0]), (down.start, down.stop)
    else:
        assert down == slice(0, rows)
        whole, kept, (start, stop) = columns, Fraction(size[0] * rows, size[1]), (across.start, across.stop)
    first, last = 0, whole
    while last - first - 2 >= math.floor(kept + Fraction(1, 10**7)):
        first, last = first + 1, last - 1
    assert (start, stop) == (first, last)


@given(SIZES, st.sampled_from([NEXT, ONE]), st.integers(1, 3))
@settings(max_examples=200, deadline=None)
def test_the_number_of_tokens_is_that_of_the_tokens(size, counted, together):
    """The counted number against the laid-out tokens of small features."""
    sizes = [size] * together
    tiles = torch.zeros(counted.tiles(sizes)[0], math.prod(counted.grid), 1)
    alone = len(tiles) == 1
    found = lay_out(tiles, counted.grid, None if alone else counted.map_of(size), torch.ones(1))
    assert len(found) == counted.tokens(sizes)[0]
    rows = 1 if alone else counted.map_of(size).final[0]
    assert int(found.sum()) == rows, "a line end behind every row"


def slow_layout(tiles, patches, size, pinpoints, side, newline):
    """transformers' steps, one feature at a time."""
    rows, columns = get_anyres_image_grid_shape([size[1], size[0]], pinpoints, side)
    map_ = torch.zeros(tiles.shape[-1], rows * patches, columns * patches)
    for number, tile in enumerate(tiles[1:]):
        for place, feature in enumerate(tile):
            y = (number // columns) * patches + place // patches
            x = (number % columns) * patches + place % patches
            map_[:, y, x] = feature
    found = [*tiles[0]]
    kept = unpad_image(map_, (size[1], size[0]))
    for y in range(kept.shape[1]):
        found += [kept[:, y, x] for x in range(kept.shape[2])] + [newline]
    return torch.stack(found)


@pytest.mark.parametrize("size", [(64, 48), (30, 100), (90, 20), (28, 28), (200, 3), (1, 70)])
def test_tokens_are_laid_out_row_by_row(size):
    side, patches = 28, 3
    small = layout(side, patches, PictureConfig("anyres"), newline=True)
    pinpoints = [[rows * side, columns * side] for columns, rows in NEXT_GRIDS]
    tiles, newline = torch.randn(small.tiles([size])[0], patches * patches, 5), torch.randn(5)
    found = lay_out(tiles, small.grid, small.map_of(size), newline)
    torch.testing.assert_close(found, slow_layout(tiles, patches, size, pinpoints, side, newline), rtol=0, atol=0)
    assert len(found) == small.tokens([size])[0]


def test_a_shrunk_map_is_transformers_bilinear_one():
    side, patches = 14, 3
    small = layout(side, patches, PictureConfig("anyres", ONEVISION, 1, "whole"), newline=True)
    size = (80, 60)
    found = small.map_of(size)
    tiles = torch.randn(small.tiles([size])[0], patches * patches, 4)
    columns, rows = found.tiles
    map_ = tiles[1:].view(rows, columns, patches, patches, 4).permute(4, 0, 2, 1, 3).flatten(1, 2).flatten(2, 3)
    kept = unpad_image(map_, (size[1], size[0]))
    ratio = math.sqrt(kept.shape[1] * kept.shape[2] / patches**2)
    small_map = torch.nn.functional.interpolate(
        kept[None], [int(kept.shape[1] // ratio), int(kept.shape[2] // ratio)], mode="bilinear"
    )[0]
    tokens = lay_out(tiles, small.grid, found, None)
    torch.testing.assert_close(tokens[patches * patches :], small_map.flatten(1).T, rtol=0, atol=0)
    assert ratio > 1.1 and found.final == tuple(small_map.shape[1:])


# pixels


def transformers_tiles(image, side):
    processor = LlavaNextImageProcessorPil(
        size={"shortest_edge": side},
        crop_size={"height": side, "width": side},
        image_grid_pinpoints=[[rows * side, columns * side] for columns, rows in NEXT_GRIDS],
    )
    found = torch.as_tensor(np.asarray(processor(image, return_tensors="np")["pixel_values"][0]))
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
    return (found * std + mean) * 255


@pytest.mark.parametrize("size", [(64, 48), (48, 64), (100, 30), (30, 100), (56, 56), (500, 375), (7, 90)])
def test_pixels_of_the_tiles_are_transformers(size):
    """Up to one step of 255: both resize with Pillow, but transformers passes through floats and rounds at the end."""
    image = photo(*size)
    found = layout(28, 4, PictureConfig("anyres"))([image])[0]
    wanted = transformers_tiles(image, 28)
    assert found.shape == wanted.shape and found.dtype == torch.uint8
    assert (found.float() - wanted).abs().max() <= 1.001
    assert (found.float() - wanted).abs().mean() < 0.05


def test_tiles_are_cut_row_by_row_out_of_the_picture_centred_on_black():
    image = Image.new("RGB", (8, 4), "white")
    tiles = layout(4, 2, PictureConfig("anyres", [[2, 2]]))([image])[0]
    assert tiles.shape == (5, 3, 4, 4) and bool((tiles[0] == 255).all())
    whole = torch.cat([torch.cat([tiles[1], tiles[2]], dim=2), torch.cat([tiles[3], tiles[4]], dim=2)], dim=1)
    assert bool((whole[:, 2:6] == 255).all()) and bool((whole[:, :2] == 0).all()) and bool((whole[:, 6:] == 0).all())


def test_the_tiles_of_a_transparent_picture_are_as_white_as_the_whole_picture():
    clear = Image.new("RGBA", (56, 56), (0, 0, 0, 0))
    tiles = layout(28, 2, PictureConfig("anyres", [[2, 2]]))([clear])[0]
    assert bool((tiles == 255).all())
    grey = photo(56, 56).convert("L")
    found = layout(28, 2, PictureConfig("anyres", [[2, 2]]))([grey])[0]
    assert torch.equal(found, layout(28, 2, PictureConfig("anyres", [[2, 2]]))([grey.convert("RGB")])[0])


# what is refused


def test_tiles_need_a_grid_of_features():
    with pytest.raises(AssemblyError, match="no grid of them is left"):
        PictureLayout(PictureConfig("anyres"), preprocess(28), 9, None)


@pytest.mark.parametrize("grids", [[], [[1]], [[0, 2]], [[9, 8]]])
def test_wrong_grids(grids):
    with pytest.raises(
        RecipeError, match=r"model\.picture\.grids: .* must be a list of \[columns, rows\], each of 1 to 64 tiles"
    ):
        PictureConfig("anyres", grids)


def test_wrong_most():
    with pytest.raises(RecipeError, match=r"model\.picture\.most: 0 must be 1 or more tiles"):
        PictureConfig("anyres", most=0)
