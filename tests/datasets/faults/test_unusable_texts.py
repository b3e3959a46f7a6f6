"""Texts that no tokenizer reads, and blank ones: named with sample and field, and skipped where bad samples are skipped."""

import json

import pytest
from PIL import Image

from modalign.datasets.decoding.sample import decode_sample
from modalign.datasets.loading.loader import Loader
from modalign.datasets.loading.plan import BatchPlan
from modalign.datasets.shards import ShardSet
from modalign.trainers.examples import CaptionChoice, PairCollate, PairExample
from modalign.zoo.encoders.image.preprocess import Augmentation, ImagePreprocess
from modalign.zoo.errors import DataError

from ..test_foreign import tar_of
from .test_pictures import stored

PICTURE = stored(Image.new("RGB", (40, 40), (1, 2, 3)), "PNG")
HALF = "bad \ud800 text"
UNUSABLE = {
    "captions half": ({"captions": {"en": ["fine", HALF]}}, "'captions.en' has a text that is no Unicode.*position 4"),
    "captions empty": ({"captions": {"en": [""]}}, "'captions.en' has a blank text"),
    "captions blank": ({"captions": {"en": ["fine", " \n"]}}, "'captions.en' has a blank text"),
    "caption half": ({"caption": HALF}, "'caption' has a text that is no Unicode"),
    "caption list half": ({"caption": ["fine", HALF]}, "'caption' has a text that is no Unicode"),
    "language half": ({"captions": {"\udc00": ["fine"]}}, "'captions' has a text that is no Unicode"),
    "language empty": ({"captions": {"": ["fine"]}}, "'captions' has a blank text"),
    "lang half": ({"lang": "\udc00", "caption": "fine"}, "'lang' has a text that is no Unicode"),
}


def shards(folder, bad):
    """Twenty samples of which the fourth is bad."""
    folder.mkdir()
    members = []
    for number in range(20):
        meta = bad if number == 3 else {"captions": {"en": [f"thing {number}"]}, "negatives": ["other"]}
        members += [(f"k{number:02d}.png", PICTURE), (f"k{number:02d}.json", json.dumps(meta).encode())]
    tar_of(folder / "0.tar", members)
    return ShardSet(folder)


def loader(source, **settings):
    plan = BatchPlan([source.shard_sizes], None, 2, 0)
    preprocess = ImagePreprocess(8, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    example = PairExample(preprocess, Augmentation(), CaptionChoice(None, "first", False), negatives=1)
    return Loader([source], plan, example, PairCollate(text=None), fields=["caption", "image"], **settings)


@pytest.mark.parametrize("case", UNUSABLE)
def test_captions(case, tmp_path, capsys):
    content, message = UNUSABLE[case]
    source = shards(tmp_path / "s", content)
    assert "1 samples have no caption, or none that can be used" in capsys.readouterr().out
    with pytest.raises(DataError, match=rf"0\.tar: sample 'k03', field 'json': {message}") as raised:
        decode_sample(source.read(3))
    str(raised.value).encode()  # it can be printed
    with pytest.raises(DataError, match=message):
        list(loader(source))
    skipping = loader(source, on_error="skip", error_budget=0.1)
    assert all("k03" not in batch["keys"] for batch in skipping)
    assert [skipped.key for skipped in skipping.quarantine.entries.values()] == ["k03"]


@pytest.mark.parametrize(("text", "message"), [(HALF, "no Unicode"), ("", "a blank text")])
def test_negatives(text, message, tmp_path):
    source = shards(tmp_path / "s", {"captions": {"en": ["fine"]}, "negatives": [text]})
    with pytest.raises(DataError, match=rf"sample 'k03'.*'negatives' has .*{message}"):
        list(loader(source))
    skipping = loader(source, on_error="skip", error_budget=0.1)
    list(skipping)
    assert [skipped.key for skipped in skipping.quarantine.entries.values()] == ["k03"]


def test_a_blank_caption_of_others_is_no_caption(tmp_path):
    """img2dataset writes one where there was no alternative text."""
    source = shards(tmp_path / "s", {"caption": " "})
    assert decode_sample(source.read(3)).captions == {}
