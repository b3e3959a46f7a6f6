"""Pictures to pixels: evaluation against timm's own transform, random views as functions of the generator."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from timm.data import create_transform

from modalign.zoo.encoders.image.preprocess import Augmentation, ImagePreprocess

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
ALL = Augmentation(scale=0.4, flip=0.5, color=0.4)


def picture(width, height, mode="RGB", seed=0):
    """A smooth gradient with shapes: something that shifts, flips and wrong colours change."""
    rng = np.random.default_rng(seed)
    low = Image.fromarray(rng.integers(0, 256, (6, 5, 3), dtype=np.uint8))
    image = low.resize((width, height), Image.Resampling.BICUBIC)
    ImageDraw.Draw(image).rectangle((width // 8, height // 8, width // 3, height // 4), fill=(250, 20, 90))
    return image if mode == "RGB" else image.convert(mode)


def preprocess_of(size, crop=1.0, interpolation="bicubic"):
    return ImagePreprocess(size, MEAN, STD, interpolation, crop)


@pytest.mark.parametrize("shape", [(90, 60), (60, 90), (64, 64), (33, 200), (20, 31), (201, 97)])
@pytest.mark.parametrize("crop", [1.0, 0.875, 0.93])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "nearest"])
def test_evaluation_equals_timms_transform(shape, crop, interpolation):
    image = picture(*shape)
    ours = preprocess_of(64, crop, interpolation)(image)
    theirs = create_transform((3, 64, 64), crop_pct=crop, interpolation=interpolation, mean=(0, 0, 0), std=(1, 1, 1))(image)
    assert ours.shape == (3, 64, 64)
    assert ours.dtype == torch.uint8
    assert torch.equal(ours.float(), (255 * theirs).round())


@pytest.mark.parametrize("shape", [(90, 60), (60, 90), (300, 41)])
def test_evaluation_step_by_step(shape):
    image = picture(*shape)
    width, height = shape
    short = 48 / 0.75
    new = (int(width * short / min(shape)), int(height * short / min(shape)))
    big = np.asarray(image.resize(new, Image.Resampling.BICUBIC))
    top, left = round((new[1] - 48) / 2), round((new[0] - 48) / 2)
    wanted = big[top : top + 48, left : left + 48].transpose(2, 0, 1)
    assert np.array_equal(preprocess_of(48, 0.75)(image).numpy(), wanted)


def test_a_picture_of_the_right_size_passes_unchanged():
    image = picture(64, 64)
    assert np.array_equal(preprocess_of(64)(image).permute(1, 2, 0).numpy(), np.asarray(image))


def test_pixels_do_not_share_memory_with_the_picture():
    image = picture(64, 64)
    before = np.asarray(image).copy()
    preprocess_of(64)(image).zero_()
    assert np.array_equal(np.asarray(image), before)


@pytest.mark.parametrize("mode", ["L", "P", "1", "CMYK", "RGBA", "LA"])
@pytest.mark.parametrize("augmentation", [Augmentation(), ALL])
def test_other_modes(mode, augmentation):
    image = picture(50, 70, mode)
    rng = np.random.default_rng(0)
    out = augmentation(image, preprocess_of(32), rng)
    assert (tuple(out.shape), out.dtype) == ((3, 32, 32), torch.uint8)
    same = augmentation(image.convert("RGB"), preprocess_of(32), np.random.default_rng(0))
    assert torch.equal(out, same), "opaque pictures are what Pillow makes of them"


@pytest.mark.parametrize("augmentation", [Augmentation(), Augmentation(scale=0.9)])
def test_transparent_is_white_whatever_colour_lies_under_it(augmentation):
    hidden = Image.new("RGBA", (40, 40), (255, 0, 0, 0))
    out = augmentation(hidden, preprocess_of(32), np.random.default_rng(0))
    assert bool((out == 255).all())
    palette = Image.new("P", (40, 40), 0)
    palette.putpalette([10, 20, 30] * 256)
    palette.info["transparency"] = 0
    assert bool((augmentation(palette, preprocess_of(32), np.random.default_rng(0)) == 255).all())


def test_settings_survive_a_release():
    import json

    preprocess = preprocess_of(64, 0.875, "bilinear")
    assert ImagePreprocess.from_dict(json.loads(json.dumps(preprocess.to_dict()))) == preprocess


@pytest.mark.parametrize("shape", [(90, 60), (37, 150)])
@pytest.mark.parametrize(
    "augmentation", [ALL, Augmentation(scale=0.1), Augmentation(flip=0.5), Augmentation(color=0.3), Augmentation(flip=1.0)]
)
def test_views_are_a_pure_function_of_the_generator(augmentation, shape):
    image, preprocess = picture(*shape), preprocess_of(32)
    original = image.copy()
    torch.manual_seed(1)
    first = [augmentation(image, preprocess, np.random.default_rng((7, n))) for n in range(12)]
    torch.manual_seed(2)
    torch.rand(5)
    again = [augmentation(image, preprocess, np.random.default_rng((7, n))) for n in reversed(range(12))][::-1]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert all((tuple(view.shape), view.dtype) == ((3, 32, 32), torch.uint8) for view in first)
    assert image.tobytes() == original.tobytes()
    if augmentation.flip < 1.0:
        assert any(not torch.equal(first[0], view) for view in first[1:]), "another generator, another view"


def test_the_global_generators_are_untouched(monkeypatch):
    def reseeded(seed):
        raise AssertionError("drawing a view reseeded the GPUs, and with them the dropout of the model")

    monkeypatch.setattr(torch.cuda, "manual_seed_all", reseeded)
    torch.default_generator.manual_seed(5)
    np.random.seed(5)
    before, before_numpy = torch.get_rng_state(), np.random.get_state()[1].copy()
    ALL(picture(50, 40), preprocess_of(32), np.random.default_rng(0))
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], before_numpy)


def test_flip_is_the_mirror_image():
    image, preprocess = picture(64, 64), preprocess_of(64)
    flipped = Augmentation(flip=1.0)(image, preprocess, np.random.default_rng(0))
    assert torch.equal(flipped, preprocess(image).flip(2))


def test_views_without_a_random_crop_keep_the_preprocessings_own_crop():
    image, preprocess = picture(64, 64), preprocess_of(64, 0.5)
    flipped = Augmentation(flip=1.0)(image, preprocess, np.random.default_rng(0))
    difference = (flipped.float() - preprocess(image).flip(2).float()).abs().mean()
    assert difference <= 2, "a picture that happens to have the input's size is cropped like any other"


def test_off_means_the_plain_picture():
    assert Augmentation().off
    assert not any(a.off for a in (Augmentation(scale=0.9), Augmentation(flip=0.1), Augmentation(color=0.1)))
    image, preprocess = picture(50, 40), preprocess_of(32)
    rng = np.random.default_rng(3)
    assert torch.equal(Augmentation()(image, preprocess, rng), preprocess(image))
    assert rng.random() == np.random.default_rng(3).random(), "nothing is drawn"


def test_crops_stay_within_scale_and_ratio():
    """A picture that is its own coordinate system: the corners of a view tell where it was cut."""
    ramp = np.zeros((200, 200, 3), dtype=np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(200)[None, :], np.arange(200)[:, None]
    image = Image.fromarray(ramp)
    augmentation = Augmentation(scale=0.3, ratio=1.5)
    shares = []
    for n in range(60):
        view = augmentation(image, preprocess_of(50, interpolation="bilinear"), np.random.default_rng(n)).float()
        width = (view[0, 25, 49] - view[0, 25, 0]).item() * 50 / 49
        height = (view[1, 49, 25] - view[1, 0, 25]).item() * 50 / 49
        shares.append(width * height / 200**2)
        assert 1 / 1.6 <= width / height <= 1.6
    assert min(shares) >= 0.27
    assert max(shares) <= 1.03
    assert max(shares) - min(shares) > 0.3
