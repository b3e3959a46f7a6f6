"""Pictures of every awkward kind, through the whole way of training: converted by rule, or skipped and counted."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from modalign.datasets.loading.loader import Loader
from modalign.datasets.loading.plan import BatchPlan
from modalign.datasets.shards import ShardSet
from modalign.trainers.examples import CaptionChoice, PairCollate, PairExample
from modalign.zoo.encoders.image.preprocess import Augmentation, ImagePreprocess
from modalign.zoo.errors import DataError

from ..test_decode import bomb
from ..test_foreign import tar_of

RED, GREEN = (230, 20, 30), (20, 200, 40)


def stored(image, kind, **settings):
    stream = io.BytesIO()
    image.save(stream, kind, **settings)
    return stream.getvalue()


def rotated():
    """Red above green as the camera meant it, stored on its side."""
    upright = Image.new("RGB", (40, 80), RED)
    upright.paste(GREEN, (0, 40, 40, 80))
    exif = Image.Exif()
    exif[0x0112] = 6
    return stored(upright.transpose(Image.Transpose.ROTATE_90), "JPEG", exif=exif, quality=95)


def noisy_jpeg():
    return stored(Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)), "JPEG")


GOOD = {
    "plain.jpg": stored(Image.new("RGB", (60, 40), RED), "JPEG"),
    "grey.jpg": stored(Image.new("L", (60, 40), 77), "JPEG"),
    "cmyk.jpg": stored(Image.new("CMYK", (60, 40), (0, 255, 255, 0)), "JPEG"),
    "sixteen.png": stored(Image.fromarray(np.full((40, 60), 0x8012, dtype=np.uint16)), "PNG"),
    "palette.png": stored(Image.new("RGB", (60, 40), RED).convert("P", palette=Image.Palette.ADAPTIVE), "PNG"),
    "rotated.jpg": rotated(),
    "dot.png": stored(Image.new("RGB", (1, 1), RED), "PNG"),
    "animated.webp": stored(
        Image.new("RGB", (60, 40), RED), "WEBP", save_all=True, append_images=[Image.new("RGB", (60, 40), GREEN)], quality=100
    ),
    "animated.png": stored(
        Image.new("RGB", (60, 40), RED), "PNG", save_all=True, append_images=[Image.new("RGB", (60, 40), GREEN)]
    ),
    "large.jpg": stored(Image.new("RGB", (900, 700), RED), "JPEG"),
}
BAD = {
    "garbage.jpg": (b"\xff\xd8\xff not a picture", "not a JPEG, PNG or WebP"),
    "empty.jpg": (b"", "0 bytes"),
    "cut.jpg": (noisy_jpeg()[:2000], "cannot be decoded|truncated"),
    "thread.png": (stored(Image.new("RGB", (20000, 1)), "PNG"), "one side is more than 100 times the other"),
    "bomb.png": (bomb(13000, 13000), "13000x13000 pixels, more than the limit"),
    "text.jpg": (b"<html>404</html>", "not a JPEG, PNG or WebP"),
}
COLOUR = {"grey.jpg": (77, 77, 77), "sixteen.png": (128, 128, 128), "cmyk.jpg": (254, 0, 0)}
VIEWS = [Augmentation(), Augmentation(scale=0.5, flip=0.5, color=0.0), Augmentation(scale=0.3, color=0.2)]


def shards_of(tmp_path, pictures):
    members = []
    for name, data in pictures.items():
        key, _, ext = name.partition(".")
        members += [(f"{key}_{ext}.{ext}", data), (f"{key}_{ext}.txt", b"a caption")]
    (tmp_path / "s").mkdir()
    tar_of(tmp_path / "s" / "0.tar", members)
    return ShardSet(tmp_path / "s")


def loader(source, view, **settings):
    example = PairExample(ImagePreprocess(32, (0.5,) * 3, (0.5,) * 3), view, CaptionChoice(None, "first", False))
    plan = BatchPlan([source.shard_sizes], None, 1, 0)
    return Loader([source], plan, example, PairCollate(), fields=["caption", "image"], **settings)


@pytest.mark.parametrize("view", VIEWS, ids=["plain", "crops", "colours"])
def test_good_ones_become_rgb_by_rule(tmp_path, view):
    """Fault 10: CMYK, 16 bit, palette, rotated by EXIF, one pixel, animated (the first frame)."""
    source = shards_of(tmp_path, GOOD)
    seen = {batch["keys"][0]: batch["image"][0] for batch in loader(source, view)}
    assert set(seen) == set(source.keys)
    for name in GOOD:
        pixels = seen[name.replace(".", "_")]
        assert pixels.dtype == torch.uint8 and tuple(pixels.shape) == (3, 32, 32)
        if name != "rotated.jpg" and not view.color:
            assert (pixels.float().mean((1, 2)) - torch.tensor(COLOUR.get(name, RED)).float()).abs().max() <= 6, name
    if view.off:
        turned = seen["rotated_jpg"].float()
        assert turned[0, :14].mean() > 200 and turned[1, 18:].mean() > 170, "red above green"


@pytest.mark.parametrize("view", VIEWS, ids=["plain", "crops", "colours"])
@pytest.mark.parametrize("name", BAD)
def test_bad_ones_are_one_sentence(tmp_path, name, view):
    """Fault 10: what cannot be decoded, is empty, cut, a thread of pixels or a bomb; bombs are refused from the header."""
    source = shards_of(tmp_path, {name: BAD[name][0]})
    key, _, ext = name.partition(".")
    with pytest.raises(DataError, match=rf"0\.tar: sample '{key}_{ext}', field '{ext}': .*({BAD[name][1]})") as caught:
        list(loader(source, view))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_ones_are_skipped_and_counted(tmp_path, workers):
    source = shards_of(tmp_path, {**GOOD, **{name: data for name, (data, _) in BAD.items()}})
    one = loader(source, VIEWS[1], on_error="skip", error_budget=0.5, num_workers=workers)
    keys = [key for batch in one for key in batch["keys"]]
    assert set(keys) <= {name.replace(".", "_") for name in GOOD} and len(keys) == len(GOOD) + len(BAD)
    assert {entry.key for entry in one.quarantine.entries.values()} == {name.replace(".", "_") for name in BAD}
    assert {entry.field for entry in one.quarantine.entries.values()} == {"jpg", "png"}
    assert one.quarantine.by_shard() == {str(tmp_path / "s" / "0.tar"): len(BAD)}
