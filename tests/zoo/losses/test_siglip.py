"""SigLIP's loss against known values, the official numbers, a slow oracle and invariants; exchanges over ranks: test_ranks.py."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from modalign.zoo.errors import RecipeError
from modalign.zoo.losses.siglip import SigLipLoss, siglip_loss


def double(rows):
    return torch.tensor(rows, dtype=torch.float64)


def test_siglip_known_values():
    eye = torch.eye(2, dtype=torch.float64)
    assert siglip_loss(double([[2, 1], [0, 3]]), eye, 1.0, 0.0).item() == pytest.approx(1.0909621153474414, rel=1e-12)
    assert siglip_loss(eye, eye, 1.0, 0.0).item() == pytest.approx(1.0064088680781682, rel=1e-12)
    assert siglip_loss(eye, eye, 10.0, -10.0).item() == pytest.approx(0.6931925794591621, rel=1e-12)
    for count in (1, 3, 8):
        same = torch.ones(count, 2, dtype=torch.float64)
        assert siglip_loss(same, same, 0.0, 0.0).item() == pytest.approx(count * math.log(2), rel=1e-12)


def test_siglip_equals_the_official_loss_of_one_process(golden, leaf):
    data = golden("distributed_2proc")
    x, y, weight = torch.tensor(data["x"]), torch.tensor(data["y"]), leaf(data["W"])
    scale, bias = leaf(data["logit_scale_param"]), leaf(data["logit_bias"])
    value = siglip_loss(F.normalize(x @ weight, dim=-1), F.normalize(y @ weight.T, dim=-1), scale.exp(), bias)
    value.backward()
    found = {"loss": value.detach(), "gradW": weight.grad, "grad_ls": scale.grad, "grad_bias": bias.grad}
    for name, have in found.items():
        np.testing.assert_allclose(have, data[f"sig_{name}"], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("positives", [True, False])
def test_siglip_equals_a_loop_over_pairs(unit, positives):
    image, text, scale, bias = unit(5, 4, 1), unit(5, 4, 2), 7.0, -3.0
    total = 0.0
    for i in range(5):
        for j in range(5):
            logit = scale * float(image[i] @ text[j]) + bias
            total += math.log1p(math.exp(-logit if positives and i == j else logit))
    assert siglip_loss(image, text, scale, bias, positives=positives).item() == pytest.approx(total / 5, rel=1e-12)


@pytest.mark.parametrize("chunk", [1, 3, 7, 100])
def test_siglip_in_chunks_is_the_same(unit, leaf, same_gradients, chunk):
    leaves = leaf(unit(7, 4, 2)), leaf(unit(7, 4, 3)), leaf(10.0), leaf(-4.0)
    same_gradients(lambda *a: siglip_loss(*a, chunk=chunk), siglip_loss, *leaves, rtol=1e-13)


def test_siglip_in_chunks_never_holds_all_logits(unit, leaf, largest_tensor, kept_for_backward):
    image, text, bias = leaf(unit(64, 4, 2)), leaf(unit(64, 4, 3)), leaf(-2.0)
    with largest_tensor() as whole:
        siglip_loss(image, text, 5.0, bias).backward()
    with largest_tensor() as chunked:
        siglip_loss(image, text, 5.0, bias, chunk=8).backward()
    assert whole.numel == 64 * 64 and chunked.numel == 8 * 64
    assert kept_for_backward(lambda: siglip_loss(image, text, 5.0, bias)) > 64 * 64
    assert kept_for_backward(lambda: siglip_loss(image, text, 5.0, bias, chunk=8)) < 64 * 64


def test_siglip_is_invariant_to_swap_permutation_and_rotation_but_not_to_the_bias(unit, rotation):
    image, text, turn, order = unit(6, 4, 2), unit(6, 4, 3), rotation(4), torch.tensor([3, 0, 5, 1, 2, 4])
    wanted = siglip_loss(image, text, 10.0, -2.0).item()
    assert siglip_loss(text, image, 10.0, -2.0).item() == pytest.approx(wanted, rel=1e-12)
    assert siglip_loss(image[order], text[order], 10.0, -2.0).item() == pytest.approx(wanted, rel=1e-12)
    assert siglip_loss(image @ turn, text @ turn, 10.0, -2.0).item() == pytest.approx(wanted, rel=1e-10)
    assert abs(siglip_loss(image, text, 10.0, -3.0).item() - wanted) > 1e-2


def test_siglip_of_large_logits_is_finite_and_exact(leaf):
    eye = torch.eye(3)
    far = siglip_loss(eye, eye, torch.tensor(2e4), torch.tensor(-1e4))
    assert far.item() == 0.0
    wrong, scale = siglip_loss(eye, eye.flip(0), torch.tensor(2e4), torch.tensor(-1e4)), leaf(1.0)
    assert wrong.item() == pytest.approx(2 * 2e4 / 3, rel=1e-6)  # two pairs missed and two wrong ones taken, by 1e4 each
    siglip_loss(eye, eye.flip(0), 2e4 * scale, torch.tensor(-1e4)).backward()
    assert scale.grad.isfinite()


@pytest.mark.parametrize("logit", [-60.0, 21.0, 40.0, 60.0])
def test_siglip_does_not_round_off_what_is_beyond_twenty(leaf, logit):
    """Where torch's own softplus is a straight line already."""
    bias = leaf(logit)
    value = siglip_loss(torch.zeros(1, 2).double(), torch.zeros(1, 2).double(), 1.0, bias, positives=False)
    (grad,) = torch.autograd.grad(value, bias)
    assert value.item() == pytest.approx(max(logit, 0.0) + math.log1p(math.exp(-abs(logit))), rel=1e-15)
    assert grad.item() == pytest.approx(1 / (1 + math.exp(-logit)), rel=1e-15)


def test_siglip_computes_in_float32_under_bfloat16(unit):
    image, text = unit(8, 16, 5).float(), unit(8, 16, 6).float()
    wanted = siglip_loss(image, text, 100.0, -10.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert siglip_loss(image, text, 100.0, -10.0).item() == wanted.item()


def test_an_unknown_exchange_names_the_nearest():
    with pytest.raises(RecipeError, match="did you mean 'shift'"):
        SigLipLoss(exchange="shifted")


def test_siglip_compiles_into_one_graph(unit):
    compiled = torch.compile(siglip_loss, backend="eager", fullgraph=True)
    image, text = unit(5, 4, 1), unit(5, 4, 2)
    assert compiled(image, text, 5.0, -1.0).item() == siglip_loss(image, text, 5.0, -1.0).item()
