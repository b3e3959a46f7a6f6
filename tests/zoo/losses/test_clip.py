"""CLIP's loss against the official numbers, a slow oracle and the invariants of the specification; flags over ranks: test_ranks.py."""

import math

import numpy as np
import pytest
import torch

from modalign.zoo.errors import RecipeError
from modalign.zoo.losses.clip import ClipLoss, clip_loss

CLOSE = {"rtol": 1e-9, "atol": 1e-10}


def test_clip_equals_the_official_loss_and_gradients(golden, leaf):
    data = golden("clip_single")
    image, text, scale = leaf(data["image"]), leaf(data["text"]), leaf(data["logit_scale"])
    loss = clip_loss(image, text, scale)
    loss.backward()
    np.testing.assert_allclose(loss.item(), data["loss"], **CLOSE)
    np.testing.assert_allclose(image.grad, data["grad_image"], **CLOSE)
    np.testing.assert_allclose(text.grad, data["grad_text"], **CLOSE)
    np.testing.assert_allclose(scale.grad, data["grad_logit_scale"], **CLOSE)


@pytest.mark.parametrize(("smoothing", "name"), [(0.0, "loss_s0"), (0.1, "loss_s01"), (0.1, "loss_torch_label_smoothing_01")])
def test_clip_label_smoothing_equals_the_official_loss(golden, smoothing, name, leaf):
    data = golden("clip_label_smoothing")
    loss = clip_loss(leaf(data["image"]), leaf(data["text"]), float(data["logit_scale"]), label_smoothing=smoothing)
    np.testing.assert_allclose(loss.item(), data[name], **CLOSE)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_both_accuracies_equal_the_official_ones(golden, smoothing):
    data = golden("clip_label_smoothing")
    assert float(data["acc_i2t"]) != float(data["acc_t2i"]), "else the test could not tell the directions apart"
    names = ("image", "text", "logit_scale")
    image, text, scale = (torch.tensor(data[name]) for name in names)
    outputs = {"image_embedding": image, "text_embedding": text, "logit_scale": scale}
    metrics = ClipLoss(label_smoothing=smoothing)(outputs, {}).metrics
    for direction in ("i2t", "t2i"):
        np.testing.assert_allclose(metrics[f"{direction}_accuracy"], data[f"acc_{direction}"], rtol=1e-6)  # stored in float32


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_clip_equals_a_loop_over_pairs(smoothing, unit):
    image, text, scale = unit(5, 7, 0), unit(5, 7, 1), 9.0
    count, total = len(image), 0.0
    for rows, columns in ((image, text), (text, image)):
        for i in range(count):
            scores = [scale * float(rows[i] @ columns[j]) for j in range(count)]
            log_sum = math.log(sum(math.exp(s) for s in scores))
            target = [(1 - smoothing) * (i == j) + smoothing / count for j in range(count)]
            total -= sum(t * (s - log_sum) for t, s in zip(target, scores, strict=True))
    assert clip_loss(image, text, scale, label_smoothing=smoothing).item() == pytest.approx(total / (2 * count), rel=1e-12)


def test_clip_known_values():
    eye = torch.eye(2, dtype=torch.float64)
    assert clip_loss(eye, eye, 1.0).item() == pytest.approx(0.31326168751822286, rel=1e-12)
    same = torch.ones(7, 3, dtype=torch.float64)
    assert clip_loss(same, same, 3.0).item() == pytest.approx(math.log(7), rel=1e-12)
    assert clip_loss(eye, eye, 1e4).item() == 0.0


def test_clip_is_invariant_to_swap_permutation_and_rotation(unit, rotation):
    image, text = unit(6, 4, 2), unit(6, 4, 3)
    turn = rotation(4)
    order = torch.tensor([3, 0, 5, 1, 2, 4])
    wanted = clip_loss(image, text, 20.0).item()
    assert clip_loss(text, image, 20.0).item() == pytest.approx(wanted, rel=1e-12)
    assert clip_loss(image[order], text[order], 20.0).item() == pytest.approx(wanted, rel=1e-12)
    assert clip_loss(image @ turn, text @ turn, 20.0).item() == pytest.approx(wanted, rel=1e-10)


def test_clip_computes_in_float32_under_bfloat16(unit):
    image, text = unit(8, 16, 5).float(), unit(8, 16, 6).float()
    wanted = clip_loss(image, text, 100.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert clip_loss(image, text, 100.0).item() == wanted.item()


def test_local_rows_against_the_gathered_batch_average_to_the_whole(unit):
    image, text = unit(6, 4, 7), unit(6, 4, 8)
    parts = [clip_loss(image[s : s + 2], text[s : s + 2], 11.0, all_image=image, all_text=text, offset=s) for s in (0, 2, 4)]
    assert torch.stack(parts).mean().item() == pytest.approx(clip_loss(image, text, 11.0).item(), rel=1e-12)


def test_clip_of_given_logits():
    """Final logits [[2, 1], [0, 3]]: the value worked out by hand, row by row and column by column."""
    image = torch.tensor([[2.0, 1.0], [0.0, 3.0]], dtype=torch.float64)
    assert clip_loss(image, torch.eye(2, dtype=torch.float64), 1.0).item() == pytest.approx(0.1539262652944775, rel=1e-12)


def test_no_label_smoothing_is_no_change(unit):
    image, text = unit(6, 4, 2), unit(6, 4, 3)
    assert clip_loss(image, text, 9.0, label_smoothing=0.0).item() == clip_loss(image, text, 9.0).item()
    assert clip_loss(image, text, 9.0, label_smoothing=0.1).item() != clip_loss(image, text, 9.0).item()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("chunk", [1, 3, 7, 100])
def test_clip_in_chunks_is_the_same(unit, leaf, same_gradients, chunk, smoothing):
    leaves = leaf(unit(7, 4, 2)), leaf(unit(7, 4, 3)), leaf(14.0)
    options = {"label_smoothing": smoothing}
    same_gradients(lambda *a: clip_loss(*a, chunk=chunk, **options), lambda *a: clip_loss(*a, **options), *leaves, rtol=1e-13)


def test_clip_in_chunks_never_holds_all_logits(unit, leaf, largest_tensor, kept_for_backward):
    image, text = leaf(unit(64, 4, 2)), leaf(unit(64, 4, 3))
    with largest_tensor() as whole:
        clip_loss(image, text, 5.0).backward()
    with largest_tensor() as chunked:
        clip_loss(image, text, 5.0, chunk=8).backward()
    assert whole.numel == 64 * 64 and chunked.numel == 8 * 64
    assert kept_for_backward(lambda: clip_loss(image, text, 5.0)) > 64 * 64
    assert kept_for_backward(lambda: clip_loss(image, text, 5.0, chunk=8)) < 64 * 64


def test_clip_of_one_pair_and_of_none_is_zero_with_a_graph(unit, leaf):
    for rows in (1, 0):
        image, scale = leaf(unit(rows, 4, 1)), leaf(3.0)
        value = clip_loss(image, unit(rows, 4, 2), scale)
        value.backward()
        assert value.item() == 0.0 and scale.grad.item() == 0.0 and not image.grad.any()


def test_a_logit_bias_changes_nothing_and_gets_the_gradient_zero(unit, leaf):
    outputs = {"image_embedding": unit(5, 4, 1), "text_embedding": unit(5, 4, 2), "logit_scale": torch.tensor(7.0)}
    plain = ClipLoss()(outputs, {}).value
    bias = leaf(-10.0)
    value = ClipLoss()(outputs | {"logit_bias": bias}, {}).value
    value.backward()
    assert value.item() == plain.item() and bias.grad.item() == 0.0


def test_accuracy_is_the_share_of_rows_whose_own_partner_scores_highest():
    image = torch.eye(4)
    text = torch.stack([image[0], image[1], image[3], 0.6 * image[2] + 0.8 * image[3]])
    for chunk in (None, 3):
        outputs = {"image_embedding": image, "text_embedding": text, "logit_scale": torch.tensor(2.0)}
        metrics = ClipLoss(chunk=chunk)(outputs, {}).metrics
        assert (metrics["i2t_accuracy"].item(), metrics["t2i_accuracy"].item()) == (0.5, 0.75)


@pytest.mark.parametrize("chunk", [0, -1])
def test_a_chunk_without_rows_is_refused(chunk):
    with pytest.raises(RecipeError, match=f"chunk: {chunk} rows at a time"):
        ClipLoss(chunk=chunk)


def test_clip_compiles_into_one_graph(unit):
    image, text = unit(5, 4, 1), unit(5, 4, 2)
    compiled = torch.compile(clip_loss, backend="eager", fullgraph=True)
    assert compiled(image, text, 5.0).item() == clip_loss(image, text, 5.0).item()
