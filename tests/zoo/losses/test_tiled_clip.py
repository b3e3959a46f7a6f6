"""The tiled loss: exact for any tile, with logits far beyond what can be exponentiated, and without the logits."""

import itertools
import random

import numpy as np
import pytest
import torch

from modalign.zoo.errors import RecipeError
from modalign.zoo.losses.clip import clip_loss
from modalign.zoo.losses.parts.tiles import LogSum, Tiles, add_log_sums
from modalign.zoo.losses.tiled_clip import TiledClipLoss, tiled_clip_loss

CLOSE = {"rtol": 1e-9, "atol": 1e-10}


def test_tiled_equals_the_official_loss_and_gradients(golden, leaf):
    data = golden("clip_single")
    image, text, scale = leaf(data["image"]), leaf(data["text"]), leaf(data["logit_scale"])
    loss = tiled_clip_loss(image, text, scale, tile=4)
    loss.backward()
    np.testing.assert_allclose(loss.item(), data["loss"], **CLOSE)
    np.testing.assert_allclose(image.grad, data["grad_image"], **CLOSE)
    np.testing.assert_allclose(text.grad, data["grad_text"], **CLOSE)
    np.testing.assert_allclose(scale.grad, data["grad_logit_scale"], **CLOSE)


@pytest.mark.parametrize("tile", [1, 3, 4, 11, 2048])
def test_tiled_is_clip_for_any_tile(unit, leaf, same_gradients, tile):
    leaves = leaf(unit(11, 5, 1)), leaf(unit(11, 5, 2)), leaf(30.0)
    same_gradients(lambda *a: 3.0 * tiled_clip_loss(*a, tile=tile), lambda *a: 3.0 * clip_loss(*a), *leaves)


def test_tiled_is_clip_in_float32_to_1e_6(unit):
    image, text = (unit(96, 32, seed).float().requires_grad_() for seed in (1, 2))
    scale = torch.tensor(100.0, requires_grad=True)
    tiled, plain = tiled_clip_loss(image, text, scale, tile=40), clip_loss(image, text, scale)
    torch.testing.assert_close(tiled, plain, rtol=1e-6, atol=0)
    for have, want in zip(
        torch.autograd.grad(tiled, (image, text, scale)), torch.autograd.grad(plain, (image, text, scale)), strict=True
    ):
        torch.testing.assert_close(have, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_log_sums_of_logits_up_to_ten_thousand_in_any_order_of_tiles(unit, dtype, seed):
    """Every block of tiles added in a random order; the largest logits overflow an exponential without the tile's maximum."""
    rows, columns = (100 * unit(count, 6, seed + count).to(dtype) for count in (13, 17))
    rows[0], columns[0] = columns[0], columns[0].clone()  # a logit of exactly 1e4, and its opposite
    rows[1] = -rows[0]
    logits = rows @ columns.T
    assert logits.max() > 9999 and logits.min() < -9999
    of_rows, of_columns = LogSum.empty(13, rows), LogSum.empty(17, rows)
    blocks = list(itertools.product(((0, 5), (5, 6), (6, 13)), ((0, 9), (9, 17))))
    random.Random(seed).shuffle(blocks)
    for (top, bottom), (left, right) in blocks:
        i, j = slice(top, bottom), slice(left, right)
        parts = (LogSum(side.top[place], side.total[place]) for side, place in ((of_rows, i), (of_columns, j)))
        add_log_sums(Tiles(4, rows), rows[i], columns[j], *parts, None)
    exact = rows.double() @ columns.double().T
    for side, axis in ((of_rows, 1), (of_columns, 0)):
        found = side.top.double() + side.total.double().log()
        torch.testing.assert_close(found, exact.logsumexp(axis), rtol=1e-6 if dtype == torch.float32 else 1e-14, atol=0)


def test_extreme_scales_give_finite_gradients_equal_to_clip(unit, leaf, same_gradients):
    leaves = leaf(unit(9, 5, 1)), leaf(unit(9, 5, 2)), leaf(1e4)
    same_gradients(lambda *a: tiled_clip_loss(*a, tile=4), clip_loss, *leaves)


def test_no_tensor_is_larger_than_a_tile_or_the_vectors(unit, leaf, largest_tensor, kept_for_backward):
    image, text, scale = leaf(unit(64, 4, 2)), leaf(unit(64, 4, 3)), leaf(5.0)
    with largest_tensor() as seen:
        tiled_clip_loss(image, text, scale, tile=16).backward()
    assert seen.numel == max(16 * 16, 64 * 4)
    assert kept_for_backward(lambda: tiled_clip_loss(image, text, scale, tile=16)) == 2 * 64 * 4 + 4 * 64 + 1


def test_inputs_are_left_as_they_are(unit, leaf):
    image, text = unit(6, 4, 1), unit(6, 4, 2)
    kept = image.clone(), text.clone()
    tiled_clip_loss(image.requires_grad_(), text.requires_grad_(), leaf(9.0), tile=4).backward()
    assert torch.equal(image.detach(), kept[0]) and torch.equal(text.detach(), kept[1])


def test_strided_vectors_and_a_scale_in_a_vector_are_fine(unit, leaf, same_gradients):
    leaves = leaf(unit(5, 7, 1)), leaf(unit(5, 7, 2)), leaf([12.0])
    same_gradients(lambda a, b, s: tiled_clip_loss(a.T, b.T, s, tile=3), lambda a, b, s: clip_loss(a.T, b.T, s), *leaves)


def test_one_pair_and_none_give_zero_with_a_graph(unit, leaf):
    for rows in (1, 0):
        image, scale = leaf(unit(rows, 4, 1)), leaf(3.0)
        value = tiled_clip_loss(image, unit(rows, 4, 2), scale)
        value.backward()
        assert value.item() == 0.0 and scale.grad.item() == 0.0 and not image.grad.any()


def test_tiled_computes_in_float32_under_bfloat16(unit):
    image, text, scale = unit(8, 16, 5).float(), unit(8, 16, 6).float(), torch.tensor(100.0)
    wanted = tiled_clip_loss(image, text, scale)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert tiled_clip_loss(image, text, scale).item() == wanted.item()
        half = tiled_clip_loss(image.bfloat16(), text.bfloat16(), scale)
    assert half.dtype == torch.float32


def test_the_module_reads_a_bias_where_there_is_one(unit, leaf):
    outputs = {"image_embedding": unit(5, 4, 1), "text_embedding": unit(5, 4, 2), "logit_scale": torch.tensor(7.0).double()}
    bias = leaf(-10.0)
    value = TiledClipLoss(tile=2)(outputs | {"logit_bias": bias}, {}).value
    value.backward()
    assert value.item() == pytest.approx(clip_loss(*outputs.values()).item(), rel=1e-12) and bias.grad.item() == 0.0
    with pytest.raises(RecipeError, match="tile: 0"):
        TiledClipLoss(tile=0)
