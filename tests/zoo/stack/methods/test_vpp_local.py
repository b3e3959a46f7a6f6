"""The local position prompt: the detector's pixels, the overlay over them, and where its queries stand."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from modalign.zoo.encoders.image.preprocess import ImagePreprocess
from modalign.zoo.errors import AssemblyError, RecipeError
from modalign.zoo.language.encode import IMAGE_PLACEHOLDER
from modalign.zoo.stack.hooks import Surroundings
from modalign.zoo.stack.methods.detector_config import BackboneConfig, DetectorConfig
from modalign.zoo.stack.methods.vpp_local import VppLocal, picture_area

from .. import written

MEAN, STD = np.array((0.485, 0.456, 0.406)), np.array((0.229, 0.224, 0.225))
SIZES = [(64, 64), (30, 70), (70, 30), (1, 90), (333, 77), (50, 49), (101, 64), (64, 100), (7, 5), (1280, 853), (65, 63)]


@pytest.fixture
def both(stack, local_settings):
    """A stack with both prompts."""
    return stack("vpp_llava", hooks={"vpp_global": {}, "vpp_local": local_settings})


@pytest.fixture
def local(stack, local_settings):
    """A stack with the local prompt alone."""
    return stack("vpp_llava", hooks={"vpp_local": local_settings})


def test_the_papers_projector_has_4461568_parameters():
    small = DetectorConfig(backbone=BackboneConfig("timm:test_resnet"), encoder_layers=1, decoder_layers=1, ffn=8)
    hook = VppLocal(Surroundings(4096, ImagePreprocess(336, (0.5,) * 3, (0.5,) * 3), 576), small)
    assert sum(parameter.numel() for parameter in hook.projector.parameters()) == 4_461_568
    assert (hook.extra_tokens, hook.preprocess.size) == (100, 640)


def test_the_papers_picture_is_676_tokens(stack, tmp_path, local_settings):
    clip = written.write_clip(tmp_path / "clip", image_size=336, patch_size=14)
    detector = {**local_settings["detector"], "queries": 100}
    model = stack("vpp_llava", image={"name": f"local-dir:{clip}"}, hooks={"vpp_local": {**local_settings, "detector": detector}})
    assert model.layout.tokens([(640, 480)]) == [676]


@pytest.mark.parametrize("size", SIZES)
def test_the_pictures_area_is_where_its_pixels_are(size):
    preprocess = ImagePreprocess(64, (0.5,) * 3, (0.5,) * 3, "bilinear", resize_mode="longest")
    white = preprocess(Image.new("RGB", size, "white"))
    assert torch.equal(picture_area(torch.tensor([size]), 64)[0, 0], white[0] == 255)


@pytest.mark.parametrize("size", [(90, 40), (33, 77), (64, 64)])
def test_what_the_detector_sees_is_the_resized_picture_on_zeros(local, photo, size):
    hook, picture = local.hooks["vpp_local"], photo(*size, 3)
    shown = hook.shown(hook.preprocess(picture)[None], torch.tensor([size]))[0].numpy()
    ratio = 64 / max(size)
    small = picture.resize((round(size[0] * ratio), round(size[1] * ratio)), Image.Resampling.BILINEAR)
    expected = np.zeros((64, 64, 3))
    left, top = (64 - small.width) // 2, (64 - small.height) // 2
    expected[top : top + small.height, left : left + small.width] = (np.asarray(small) / 255 - MEAN) / STD
    assert np.allclose(shown, expected.transpose(2, 0, 1), atol=1e-5)


def test_the_overlay_of_the_other_encoder_lies_over_the_whole_square(both, local, photo):
    hook, overlay = both.hooks["vpp_local"], both.hooks["vpp_global"]
    overlay.overlay.data.normal_()
    pixels, sizes = hook.preprocess(photo(90, 40))[None], torch.tensor([(90, 40)])
    plain = local.hooks["vpp_local"].shown(pixels, sizes)
    delta, frame = (F.interpolate(part[None], size=(64, 64)) for part in (overlay.overlay, overlay.frame))
    assert torch.allclose(hook.shown(pixels, sizes), 0.95 * plain + 0.05 * delta * frame, atol=1e-6)
    assert bool((frame[0, 0, 0] == 1).all())  # beside the picture too


def test_order_of_the_hooks_does_not_matter_and_the_overlay_can_be_left_out(stack, local_settings, photo):
    turned = stack("vpp_llava", hooks={"vpp_local": local_settings, "vpp_global": {}})
    without = stack("vpp_llava", hooks={"vpp_global": {}, "vpp_local": {**local_settings, "overlay": False}})
    assert turned.hooks["vpp_local"]._prompts == (turned.hooks["vpp_global"],)
    pixels, sizes = torch.zeros(1, 3, 64, 64, dtype=torch.uint8), torch.tensor([(90, 40)])
    assert not torch.equal(turned.hooks["vpp_local"].shown(pixels, sizes), without.hooks["vpp_local"].shown(pixels, sizes))
    assert without.hooks["vpp_local"].shown(pixels, sizes)[0, 0, 0, 0] == 0


def test_the_overlay_is_no_part_of_the_local_prompt_and_copies_stay_apart(both):
    names = [name for name, _ in both.named_parameters() if "overlay" in name]
    assert names == ["hooks.vpp_global.overlay"]
    copied = copy.deepcopy(both)
    assert copied.hooks["vpp_local"]._prompts == (copied.hooks["vpp_global"],)


def test_queries_stand_behind_each_pictures_own_tokens(local, batch_of):
    batch = batch_of(local, [(1, "What is it?"), (0, "How many birds?"), (2, "What is it?")])
    assert batch["image_lengths"].tolist() == [16 + 5] * 3
    with torch.no_grad():
        embedded, tiles = local.embed(batch), local.projected(batch)
        hook = local.hooks["vpp_local"]
        queries = hook.projector(hook.detector(hook.shown(batch["detector_image"], batch["image_sizes"])))
    expected = [torch.cat([tiles[number], queries[number]]) for number in range(3)]
    rows = [embedded[row][batch["ids"][row] == IMAGE_PLACEHOLDER] for row in range(3)]
    assert torch.allclose(rows[0], expected[0], atol=1e-5)
    assert len(rows[1]) == 0
    assert torch.allclose(rows[2], torch.cat(expected[1:]), atol=1e-5)


def test_rows_do_not_depend_on_each_other(both, batch_of, logits_of):
    together = batch_of(both, [(1, "What is it?"), (1, "How many birds are there?")])
    alone = batch_of(both, [(1, "What is it?")])
    length = int(alone["mask"].sum())
    assert torch.allclose(logits_of(both, together)[0, :length], logits_of(both, alone)[0], atol=1e-4)


def test_only_the_answer_teaches_and_reaches_detector_and_overlay(both, batch_of):
    outputs = both(batch_of(both))
    assert {*outputs} <= {"token_states", "token_labels", "token_rows", "head_weight", "head_bias"}  # no boxes, no classes
    outputs["token_states"].square().sum().backward()
    hook = both.hooks["vpp_local"]
    for parameter in (hook.projector.layers[0].weight, hook.detector.detr.query_position_embeddings.weight):
        assert parameter.grad is not None and parameter.grad.any()
    assert both.hooks["vpp_global"].overlay.grad.any()


def test_a_batch_without_pictures_keeps_every_parameter_in_the_graph(both, batch_of):
    outputs = both(batch_of(both, [(0, "How many birds?")]))
    outputs["token_states"].sum().backward()
    reached = [name for name, parameter in both.named_parameters() if name.startswith("hooks.") and parameter.grad is None]
    assert not reached
    assert all(not p.grad.any() for n, p in both.named_parameters() if n.startswith("hooks."))


def test_left_and_right_padding_answer_alike(both, batch_of, logits_of):
    asked = [(1, "What is it?"), (1, "How many birds are there on the wire?")]
    left, right = (batch_of(both, asked, side) for side in ("left", "right"))
    ends = right["mask"].sum(1) - 1
    assert torch.allclose(logits_of(both, left)[:, -1], logits_of(both, right)[torch.arange(2), ends], atol=1e-4)


def test_pixels_of_another_number_of_pictures_are_refused(local, batch_of):
    batch = batch_of(local)
    with pytest.raises(AssemblyError, match=r"pixels for the detector .detector_image. of none"):
        local({name: value for name, value in batch.items() if name != "detector_image"})
    with pytest.raises(AssemblyError, match=r"1 pictures in the batch, but pixels for the detector .* of 2"):
        local({**batch, "detector_image": batch["detector_image"].repeat(2, 1, 1, 1)})


def test_every_parameter_is_auxiliary(both):
    assert {both.role_of(name) for name, _ in both.named_parameters() if name.startswith("hooks.")} == {"aux"}


@pytest.mark.parametrize("settings", [{"size": 31}, {"hidden": 0}])
def test_what_is_refused(settings):
    with pytest.raises(RecipeError, match="vpp_local: size"):
        VppLocal(Surroundings(16, ImagePreprocess(28, (0.5,) * 3, (0.5,) * 3), 16), **settings)
