"""The global position prompt: its formula, its gradients, and LLaVA to the bit where it is switched off."""

import pytest
import torch
import torch.nn.functional as F

from modalign.zoo.encoders.image.preprocess import ImagePreprocess
from modalign.zoo.errors import RecipeError
from modalign.zoo.stack.hooks import Surroundings
from modalign.zoo.stack.methods.vpp_global import VppGlobal, normalised_axes, overlaid

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def made(side=28, **settings):
    return VppGlobal(Surroundings(16, ImagePreprocess(side, MEAN, STD), 16), **settings)


def test_formula_pixel_by_pixel():
    torch.manual_seed(0)
    images, overlay = torch.randn(2, 3, 6, 6), torch.randn(3, 6, 6)
    frame = (torch.rand(1, 6, 6) > 0.5).float()
    out = overlaid(images, overlay, frame, 0.8)
    for n in range(2):
        for c in range(3):
            for y in range(6):
                for x in range(6):
                    expected = 0.8 * images[n, c, y, x] + 0.2 * overlay[c, y, x] * frame[0, y, x]
                    assert float(out[n, c, y, x]) == pytest.approx(float(expected), abs=1e-6)


def test_the_papers_settings():
    hook = made(336)
    assert hook.alpha == 0.95 and hook.overlay.shape == (3, 336, 336) and int(hook.frame.sum()) == 36720
    assert torch.equal(hook.overlay, normalised_axes(hook.around.preprocess))


def test_of_a_black_picture_only_the_framed_overlay_is_left():
    hook = made()
    out = hook.pre_image(torch.zeros(2, 3, 28, 28))
    assert torch.allclose(out, (0.05 * hook.overlay * hook.frame).expand(2, -1, -1, -1), atol=1e-7)


def test_the_picture_counts_95_percent_everywhere():
    hook, images = made(), torch.randn(2, 3, 28, 28, requires_grad=True)
    hook.pre_image(images).sum().backward()
    assert torch.equal(images.grad, torch.full_like(images, 0.95))


def test_gradient_of_the_overlay_is_zero_exactly_outside_the_frame():
    hook = made(336)
    torch.manual_seed(0)
    images = torch.randn(1, 3, 336, 336)
    (hook.pre_image(images) * torch.rand_like(images).add(0.1)).sum().backward()
    assert int((hook.overlay.grad != 0).sum()) == 3 * 36720
    assert not hook.overlay.grad[(hook.frame == 0).expand(3, -1, -1)].any()


def test_alpha_1_changes_no_bit_and_gives_no_gradient():
    hook, images = made(alpha=1.0), torch.randn(2, 3, 28, 28)
    out = hook.pre_image(images)
    assert torch.equal(out, images)
    out.square().sum().backward()
    assert hook.overlay.grad is not None and not hook.overlay.grad.any()


@pytest.mark.parametrize("side", [56, 40, 20])
def test_other_sizes_take_the_nearest_pixel(side):
    hook = made()
    hook.overlay.data.normal_()
    delta, frame = (F.interpolate(part[None], size=(side, side))[0] for part in (hook.overlay, hook.frame))
    images = torch.randn(2, 3, side, side)
    assert torch.allclose(hook.pre_image(images), 0.95 * images + 0.05 * delta * frame, atol=1e-6)


def test_alpha_1_without_local_tokens_is_llava_to_the_bit(stack, like, batch_of, logits_of):
    plain = stack("llava")
    prompted = like(plain, stack("vpp_llava", hooks={"vpp_global": {"alpha": 1.0}}))
    batch = batch_of(plain, [(1, "What is it?"), (0, "How many birds?")])
    assert torch.equal(logits_of(plain, batch), logits_of(prompted, batch))


def test_no_hooks_is_llava_to_the_bit(stack, like, batch_of, logits_of):
    plain = stack("llava")
    without = like(plain, stack("vpp_llava", hooks={}))
    batch = batch_of(plain)
    assert torch.equal(logits_of(plain, batch), logits_of(without, batch))
    assert {*plain.state_dict()} == {*without.state_dict()}


def test_with_95_percent_answers_see_the_axes(stack, like, batch_of, logits_of):
    plain = stack("llava")
    prompted = like(plain, stack("vpp_llava", hooks={"vpp_global": {}}))
    batch = batch_of(plain)
    assert not torch.allclose(logits_of(plain, batch), logits_of(prompted, batch), atol=1e-4)


def test_in_the_encoders_own_normalisation_and_size(stack):
    model = stack("vpp_llava", hooks={"vpp_global": {}})
    assert torch.equal(model.hooks["vpp_global"].overlay, normalised_axes(model.image.preprocess))
    assert model.hooks["vpp_global"].overlay.shape[-1] == 28


def test_the_frame_is_not_saved_and_the_overlay_is(stack):
    names = [name for name in stack("vpp_llava", hooks={"vpp_global": {}}).state_dict() if name.startswith("hooks.")]
    assert names == ["hooks.vpp_global.overlay"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"alpha": 1.2}, "alpha: 1.2 must be from 0 to 1"), ({"frame": 0}, "frame: 0 must"), ({"frame": 15}, "from 1 to 14 pixels")],
)
def test_what_is_refused(settings, said):
    with pytest.raises(RecipeError, match=said):
        made(**settings)
