"""Photographs that are decoded late and coarsely, against the plain way: decode all, crop, resize with Pillow."""

import io
from dataclasses import astuple

import numpy as np
import pytest
import torch
from PIL import Image

from modalign.datasets.decoding.encoded import EncodedImage, encoded_image
from modalign.datasets.decoding.table import Limits, decode_image
from modalign.zoo.encoders.image.preprocess import Augmentation, ImagePreprocess
from modalign.zoo.encoders.image.random_view import COARSE_MARGIN, Box, cut, draw_crop
from modalign.zoo.errors import DataError

PLACE = ("s/0.tar", "k", "jpg")


def jpeg(image, **settings):
    stream = io.BytesIO()
    image.save(stream, "JPEG", **{"quality": 90, **settings})
    return stream.getvalue()


def noise(width, height, mode="RGB"):
    coarse = np.random.default_rng(width).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def plain(data, box, size, interpolation=Image.Resampling.BICUBIC):
    """The slow and obvious way, as timm does it."""
    left, top, right, bottom = box.corners
    return torch.from_numpy(
        np.array(decode_image(data).crop((left, top, right, bottom)).resize((size, size), interpolation))
    ).permute(2, 0, 1)


def difference(one, other):
    return (one.float() - other.float()).abs().mean().item()


def photographs(real_data):
    small = sorted((real_data / "flickr8k_multilingual" / "images").glob("*.jpg"))[:40]
    return small + sorted((real_data / "coco_grounded").rglob("*.jpg"))[:30]


@pytest.mark.parametrize(("size", "scale"), [(224, 0.9), (224, 0.08), (96, 0.5), (40, 0.6), (24, 0.9)])
def test_views_of_real_photographs(real_data, size, scale):
    """Within 2/255 of the plain way for every photograph, whether it is decoded in full or coarsely."""
    coarse, found = 0, []
    for number, path in enumerate(photographs(real_data)):
        data = path.read_bytes()
        picture = encoded_image(data, PLACE)
        assert isinstance(picture, EncodedImage)
        box = draw_crop(*picture.size, scale, 4 / 3, np.random.default_rng(number))
        coarse += min(box.width, box.height) >= 2 * COARSE_MARGIN * size
        found.append(difference(cut(picture, box, size), plain(data, box, size)))
    assert max(found) <= 2 and np.mean(found) <= 1
    assert coarse > 20 if size <= 40 else coarse == 0 or size == 96, "both ways are used"
    if not coarse:
        assert max(found) < 0.3, "without coarse decoding only roundings differ"


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "lanczos", "nearest"])
def test_every_interpolation(interpolation):
    data = jpeg(noise(90, 70))
    box = Box(11, 5, 60, 50)
    ours = cut(encoded_image(data, PLACE), box, 32, interpolation)
    assert difference(ours, plain(data, box, 32, Image.Resampling[interpolation.upper()])) <= (
        0.1 if interpolation != "lanczos" else 2
    )
    assert torch.equal(cut(decode_image(data), box, 32, interpolation), ours), "decoded before or after"


@pytest.mark.parametrize("factor", range(1, 12))
@pytest.mark.parametrize("size", [(160, 120), (161, 123), (17, 250), (3, 3)])
def test_coarse_sizes(factor, size):
    """f is the largest of 1, 2, 4, 8 that fits, and pixels are those at 1/f."""
    data = jpeg(noise(*size))
    image, scale = encoded_image(data, PLACE).coarse(factor)
    assert scale == max(one for one in (1, 2, 4, 8) if one <= max(1, min(factor, *size)))
    assert image.size == (-(-size[0] // scale), -(-size[1] // scale)) and image.mode == "RGB"
    if min(size) > 100:
        whole = (size[0] // scale, size[1] // scale)
        reference = decode_image(data).crop((0, 0, whole[0] * scale, whole[1] * scale)).reduce(scale)
        assert np.abs(np.asarray(image, float)[: whole[1], : whole[0]] - np.asarray(reference, float)).mean() < 1.5


def test_a_box_between_the_coarse_pixels_does_not_shift():
    """A ramp is its own coordinate system: the mean of a view tells where it was cut."""
    ramp = np.repeat(np.linspace(0, 255, 1024)[None, :, None], 768, 0).repeat(3, 2).round().astype(np.uint8)
    data = jpeg(Image.fromarray(ramp), quality=98)
    errors = []
    for left in range(101, 109):
        box = Box(left, 33, 641, 639)
        picture = encoded_image(data, PLACE)
        coarse, scale = picture.coarse(int(639 / (32 * COARSE_MARGIN)))
        assert scale == 8 and coarse.size == (128, 96)
        view = cut(encoded_image(data, PLACE), box, 32).float()
        expected = 255 / 1023 * (left + (torch.arange(32) + 0.5) * 641 / 32 - 0.5)
        errors.append((view.mean((0, 1)) - expected).mean().item())
    assert max(errors) - min(errors) < 0.8, "a coarse pixel is two levels: with a rounded box these would spread over them"


@pytest.mark.parametrize(
    "data",
    [
        jpeg(noise(50, 40, "CMYK")),
        jpeg(noise(50, 40), exif=(lambda exif: exif.__setitem__(0x0112, 6) or exif)(Image.Exif())),
    ],
    ids=["cmyk", "rotated"],
)
def test_unusual_jpegs_are_decoded_at_once(data):
    picture = encoded_image(data, PLACE)
    assert isinstance(picture, Image.Image) and picture.tobytes() == decode_image(data).tobytes()


def test_other_formats_are_decoded_at_once():
    for kind in ("PNG", "WEBP"):
        stream = io.BytesIO()
        noise(50, 40).save(stream, kind)
        assert encoded_image(stream.getvalue(), PLACE).tobytes() == decode_image(stream.getvalue()).tobytes()


def test_grey_photographs():
    data = jpeg(noise(200, 160, "L"))
    picture = encoded_image(data, PLACE)
    assert isinstance(picture, EncodedImage) and picture.decoded().tobytes() == decode_image(data).tobytes()
    assert difference(cut(encoded_image(data, PLACE), Box(0, 0, 200, 160), 30), plain(data, Box(0, 0, 200, 160), 30)) <= 2


def test_decoding_twice():
    data = jpeg(noise(200, 160))
    picture = encoded_image(data, PLACE)
    coarse, _ = picture.coarse(2)
    assert picture.decoded().tobytes() == decode_image(data).tobytes()
    assert picture.coarse(2)[0].tobytes() == coarse.tobytes()


@pytest.mark.parametrize("factor", [1, 2, 8])
def test_a_cut_file_is_an_error_at_any_scale(factor):
    rough = Image.fromarray(np.random.default_rng(0).integers(0, 255, (128, 128, 3), dtype=np.uint8))
    data = jpeg(rough)
    for share in (0.3, 0.7, 0.95):
        picture = encoded_image(data[: int(len(data) * share)], PLACE)
        with pytest.raises(DataError, match=r"^s/0\.tar: sample 'k', field 'jpg': the image cannot be decoded"):
            picture.coarse(factor)


def test_the_header_is_checked_first():
    with pytest.raises(DataError, match="more than the limit of 100"):
        encoded_image(jpeg(noise(50, 40)), PLACE, Limits(pixels=100))
    with pytest.raises(DataError, match="not a JPEG"):
        encoded_image(b"no", PLACE)


def test_an_augmentation_takes_either(real_data):
    data = photographs(real_data)[0].read_bytes()
    preprocess = ImagePreprocess(32, (0.5,) * 3, (0.5,) * 3)
    for augmentation in (
        Augmentation(),
        Augmentation(scale=0.3),
        Augmentation(flip=1.0),
        Augmentation(scale=0.5, flip=0.5, color=0.3),
    ):
        late, early = (
            augmentation(picture, preprocess, np.random.default_rng(3))
            for picture in (encoded_image(data, PLACE), decode_image(data))
        )
        assert difference(late, early) <= 2
        if augmentation.scale == 1.0:
            assert torch.equal(late, early)


def test_crops_against_torchvision():
    """The same distribution as RandomResizedCrop's: means of area, ratio and place over many draws."""
    from torchvision.transforms import RandomResizedCrop

    torch.manual_seed(0)
    image, rng = Image.new("RGB", (300, 200)), np.random.default_rng(0)
    ours = np.array([astuple(draw_crop(300, 200, 0.2, 4 / 3, rng)) for _ in range(4000)])
    theirs = np.array([RandomResizedCrop.get_params(image, (0.2, 1.0), (3 / 4, 4 / 3)) for _ in range(4000)])[:, [1, 0, 3, 2]]
    assert np.abs(ours.mean(0) - theirs.mean(0)).max() < 3 and np.abs(ours.std(0) - theirs.std(0)).max() < 3


@pytest.mark.parametrize("size", [(1, 1), (1, 90), (90, 1), (2000, 30)])
def test_crops_of_extreme_pictures_fit(size):
    for seed in range(50):
        left, top, right, bottom = draw_crop(*size, 0.3, 4 / 3, np.random.default_rng(seed)).corners
        assert 0 <= left < right <= size[0] and 0 <= top < bottom <= size[1]
