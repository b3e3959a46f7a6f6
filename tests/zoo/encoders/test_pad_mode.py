"""The preprocessing of LLaVA-1.5: the picture on a square of the mean colour, then as CLIP; against a slow version and transformers."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from modalign.zoo.encoders.image.preprocess import ImagePreprocess
from modalign.zoo.stack.model import shown_as

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
SHAPES = [(40, 60), (60, 40), (41, 60), (60, 41), (33, 97), (32, 32), (24, 24), (1, 50), (200, 3), (97, 96)]


def picture(width, height, mode="RGB"):
    coarse = np.random.default_rng(width).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def padded(side=24):
    return shown_as(ImagePreprocess(side, MEAN, STD), "pad")


def slow(image, side):
    """The rule as it is written: a square of the longer side, the picture in the middle (rounded down), resized, nothing to crop."""
    image = image.convert("RGB")
    longer = max(image.size)
    canvas = Image.new("RGB", (longer, longer), (122, 116, 104))
    for x in range(image.width):
        for y in range(image.height):
            canvas.putpixel((x + (longer - image.width) // 2, y + (longer - image.height) // 2), image.getpixel((x, y)))
    return torch.from_numpy(np.asarray(canvas.resize((side, side), Image.Resampling.BICUBIC)).copy()).permute(2, 0, 1)


def test_the_colour_is_the_mean_rounded_down():
    assert padded().fill == (122, 116, 104)
    assert (padded().resize_mode, padded().resize_to, padded().crop_fraction) == ("pad", None, 1.0)
    assert ImagePreprocess.from_dict(padded().to_dict()) == padded()


@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_the_slow_version_to_the_last_bit(shape):
    assert torch.equal(padded()(picture(*shape)), slow(picture(*shape), 24))


@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_transformers_processor(shape):
    """Up to one step of 255 at single pixels: transformers resizes through floats and rounds at the end."""
    processor = LlavaImageProcessorPil(
        do_pad=True, size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24}, image_mean=MEAN, image_std=STD
    )
    theirs = torch.as_tensor(np.asarray(processor(picture(*shape), return_tensors="np")["pixel_values"][0]))
    theirs = (theirs * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)) * 255
    difference = (padded()(picture(*shape)).float() - theirs).abs()
    assert difference.max() <= 1.001 and difference.mean() < 0.05


def test_nothing_of_the_picture_is_cut_and_it_stands_in_the_middle():
    found = padded(60)(picture(60, 30))
    border = torch.tensor([122, 116, 104], dtype=torch.uint8).view(3, 1, 1)
    assert bool((found[:, :15] == border).all()) and bool((found[:, 45:] == border).all())
    assert torch.equal(found[:, 15:45], torch.from_numpy(np.asarray(picture(60, 30)).copy()).permute(2, 0, 1))


def test_a_square_is_shown_as_by_squashing():
    squashed = shown_as(ImagePreprocess(24, MEAN, STD), "squash")
    assert squashed.resize_mode == "squash"
    assert torch.equal(padded()(picture(50, 50)), squashed(picture(50, 50)))
    assert not torch.equal(padded()(picture(50, 20)), squashed(picture(50, 20)))


@pytest.mark.parametrize("mode", ["L", "RGBA", "P"])
def test_pictures_of_other_modes(mode):
    assert torch.equal(padded()(picture(40, 20, mode)), padded()(picture(40, 20, mode).convert("RGB")))


@pytest.mark.parametrize("mode", ["own", "anyres"])
def test_other_modes_leave_the_encoders_preprocessing_as_it_is(mode):
    plain = ImagePreprocess(24, MEAN, STD, "bilinear", crop_fraction=0.875, resize_mode="longest")
    assert shown_as(plain, mode) is plain
