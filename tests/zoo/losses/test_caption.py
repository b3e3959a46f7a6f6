"""The captioning term and the chunked linear cross entropy behind it."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from modalign.zoo.errors import RecipeError
from modalign.zoo.losses.caption import CaptionLoss, caption_loss
from modalign.zoo.losses.clip import clip_loss
from modalign.zoo.losses.parts.linear_cross_entropy import linear_cross_entropy


def test_coca_equals_the_official_loss_and_gradients(golden, leaf):
    data = golden("coca_single")
    image, text, logits = leaf(data["image"]), leaf(data["text"]), leaf(data["logits"])
    contrastive = clip_loss(image, text, float(data["logit_scale"]))
    caption = 2.0 * caption_loss(logits, torch.tensor(data["labels"]))  # the official default weight
    (contrastive + caption).backward()
    np.testing.assert_allclose(contrastive.item(), data["contrastive_loss"], rtol=1e-9)
    np.testing.assert_allclose(caption.item(), data["caption_loss"], rtol=1e-9)
    for tensor, name in ((image, "image"), (text, "text"), (logits, "logits")):
        np.testing.assert_allclose(tensor.grad, data[f"grad_{name}"], rtol=1e-9, atol=1e-10)


def test_caption_equals_a_loop_over_tokens(unit):
    logits, labels = 5 * unit(6, 4, 1).view(2, 3, 4), torch.tensor([[1, 3, 0], [2, 0, 0]])
    total = 0.0
    for i, t in ((0, 0), (0, 1), (1, 0)):
        scores = logits[i, t].tolist()
        total += math.log(sum(map(math.exp, scores))) - scores[labels[i, t]]
    assert caption_loss(logits, labels).item() == pytest.approx(total / 3, rel=1e-12)


def test_captions_of_padding_only_give_zero_with_a_graph(leaf):
    logits, hidden, head = leaf(np.ones((2, 3, 4))), leaf(np.ones((2, 3, 5))), leaf(np.ones((4, 5)))
    labels = torch.zeros(2, 3, dtype=torch.int64)
    for value in (caption_loss(logits, labels), linear_cross_entropy(hidden, head, labels, ignore_index=0)):
        value.backward()
        assert value.item() == 0.0
    assert not logits.grad.any() and not hidden.grad.any() and not head.grad.any()


def test_hidden_states_give_what_logits_give(leaf, unit):
    hidden, head, labels = unit(6, 4, 1).view(2, 3, 4), 3 * unit(7, 4, 2), torch.tensor([[1, 6, 0], [2, 0, 0]])
    outputs = {"caption_logits": hidden @ head.T, "caption_hidden": hidden, "caption_head": head}
    batch = {"caption_labels": labels}
    assert CaptionLoss().inputs() == {"caption_logits", "caption_labels"}
    assert CaptionLoss(from_hidden=True).inputs() == {"caption_hidden", "caption_head", "caption_labels"}
    wanted = CaptionLoss()(outputs, batch).value.item()
    assert wanted == pytest.approx(caption_loss(hidden @ head.T, labels).item(), rel=1e-12)
    for chunk in (1, 4, 100):
        assert CaptionLoss(from_hidden=True, chunk=chunk)(outputs, batch).value.item() == pytest.approx(wanted, rel=1e-12)
    assert CaptionLoss(pad_id=6)(outputs, batch).value.item() != pytest.approx(wanted, rel=1e-3)
    with pytest.raises(RecipeError, match="chunk"):
        CaptionLoss(chunk=0)


def test_linear_cross_entropy_equals_the_official_one(golden):
    data = golden("fused_linear_ce")
    hidden, weight = (torch.tensor(data[name], requires_grad=True) for name in ("hidden", "weight"))
    value = linear_cross_entropy(hidden, weight, torch.tensor(data["target"]), chunk=4)
    value.backward()
    np.testing.assert_allclose(value.item(), data["loss"], rtol=1e-6)
    np.testing.assert_allclose(hidden.grad, data["grad_hidden"], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(weight.grad, data["grad_weight"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("chunk", [1, 4, 13, 50])
def test_linear_cross_entropy_equals_plain_cross_entropy(unit, leaf, same_gradients, chunk):
    labels = torch.arange(13) % 7
    labels[[2, 9]] = -100
    leaves = leaf(3 * unit(13, 5, 1)), leaf(2 * unit(7, 5, 2)), leaf(unit(7, 1, 3)[:, 0])
    same_gradients(
        lambda hidden, weight, bias: linear_cross_entropy(hidden, weight, labels, bias=bias, chunk=chunk),
        lambda hidden, weight, bias: F.cross_entropy(F.linear(hidden, weight, bias), labels),
        *leaves,
    )


def test_linear_cross_entropy_never_holds_all_logits(unit, leaf, largest_tensor):
    hidden, weight, labels = leaf(unit(40, 3, 1)), leaf(unit(50, 3, 2)), torch.arange(40)
    with largest_tensor() as seen:
        linear_cross_entropy(hidden, weight, labels, chunk=5).backward()
    assert seen.numel == 5 * 50


def test_a_frozen_head_gets_no_gradient_and_costs_none(unit, leaf, largest_tensor):
    hidden, weight, labels = leaf(unit(4, 3, 1)), unit(9, 3, 2), torch.arange(4)
    with largest_tensor() as frozen:
        linear_cross_entropy(hidden, weight, labels, chunk=1).backward()
    with largest_tensor() as trained:
        linear_cross_entropy(hidden, leaf(weight), labels, chunk=1).backward()
    assert "aten.addmm_.default" not in frozen.operations and "aten.addmm_.default" in trained.operations
    torch.testing.assert_close(torch.autograd.grad(F.cross_entropy(hidden @ weight.T, labels), hidden)[0], hidden.grad / 2)


def test_linear_cross_entropy_computes_in_float32_under_bfloat16(unit):
    hidden, weight, labels = unit(8, 16, 5).float(), 50 * unit(9, 16, 6).float(), torch.arange(8)
    wanted = linear_cross_entropy(hidden, weight, labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert linear_cross_entropy(hidden, weight, labels).item() == wanted.item()
        logits = (hidden.double() @ weight.double().T).float()
        assert caption_loss(logits[None], labels[None], -100).item() == pytest.approx(wanted.item(), rel=1e-5)
