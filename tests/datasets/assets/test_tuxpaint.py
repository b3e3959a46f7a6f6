"""Tux Paint's stamps: names, speech, pictures and the split, on a small made-up folder."""

import io
import json

import pytest
from PIL import Image

from modalign.datasets.assets.converters import tuxpaint
from modalign.datasets.decoding.table import decode_image
from modalign.datasets.shards import ShardSet
from modalign.zoo.errors import AssetError

SVG = '<svg width="30mm" height="60mm" xmlns="http://www.w3.org/2000/svg"><rect width="20mm" height="60mm" fill="#00f"/></svg>'


def test_names():
    text = "A dog.\nde.utf8=Ein  Hund. \npt_BR.utf8=Um c\u00e3o.\nhe.utf8=\\t\u05db\nsr@latin.utf8=Pas\nfr.utf8=\nnonsense\n"
    expected = {"en": ["A dog."], "de": ["Ein Hund."], "pt-BR": ["Um c\u00e3o."], "he": ["\u05db"], "sr-Latn": ["Pas"]}
    assert tuxpaint.captions_of(text) == expected
    assert tuxpaint.captions_of("\nde.utf8=Hund") == {} == tuxpaint.captions_of("")
    assert tuxpaint.language_tag("ca@valencia") == "ca-valencia" and tuxpaint.language_tag("fr") == "fr"


def stamp(key, name):
    return tuxpaint.Stamp(key, None, {"en": [name]}, {})


def test_concepts():
    stamps = [
        stamp("a/apple_red", "A red apple."),
        stamp("b/apple-core2", "What is left."),
        stamp("c/redApple", "Another."),
        stamp("a/strawberry", "A berry."),
        stamp("b/fraise", "a BERRY."),
        stamp("a/red_hat", "A hat."),
        stamp("a/grave-a", "A grave."),
        stamp("a/grave-b", "A tomb."),
        stamp("a/x_1", "X."),
    ]
    groups = tuxpaint.concepts_of(stamps)
    assert groups == {
        "a/apple_red": "a/apple_red",
        "b/apple-core2": "a/apple_red",
        "c/redApple": "a/apple_red",
        "a/strawberry": "a/strawberry",
        "b/fraise": "a/strawberry",
        "a/red_hat": "a/red_hat",  # a colour joins nothing
        "a/grave-a": "a/grave-a",
        "a/grave-b": "a/grave-a",
        "a/x_1": "a/x_1",
    }


def test_concepts_join_over_a_third():
    """Two stamps that share nothing are one concept if a third shares something with each, in whatever order they come."""
    stamps = [stamp("a/bus", "A bus."), stamp("b/lorry", "A lorry."), stamp("z/bus_lorry", "Both.")]
    assert set(tuxpaint.concepts_of(stamps).values()) == {"a/bus"} == set(tuxpaint.concepts_of(stamps[::-1]).values())


def test_two_tenths_are_test():
    parts = [tuxpaint.part_of(f"a/thing{n}") for n in range(2000)]
    assert set(parts) == {"train", "test"} and 320 < parts.count("test") < 480
    assert tuxpaint.part_of(None) == "symbols"


@pytest.fixture
def stamps(tmp_path):
    root = tmp_path / "p" / "usr" / "share" / "tuxpaint" / "stamps"
    letters = "abcdefghij"
    for number in range(40):
        path = root / "animals" / f"{letters[number // 10]}{letters[number % 10]}q{letters[number // 10]}_1.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = Image.new("RGBA", (600, 300), (0, 0, 0, 0))
        picture.paste((255, 0, 0, 255), (0, 0, 500, 200))
        picture.save(path)
        path.with_suffix(".txt").write_text(f"Animal {number}.\nde.utf8=Tier {number}\n", encoding="utf-8")
    first = root / "animals" / "aaqa_1.png"
    first.with_suffix(".svg").write_text(SVG)
    (first.parent / "aaqa_1_desc_fr.ogg").write_bytes(b"OggS-fr")
    (first.parent / "aaqa_1_desc.ogg").write_bytes(b"OggS-en")
    (first.parent / "aaqa_1.ogg").write_bytes(b"OggS-noise")
    (root / "symbols").mkdir()
    first.rename(root / "symbols" / "one.png")
    (root / "symbols" / "one.txt").write_text("The number 1.")
    (root / "animals" / "nothing.txt").write_text("No picture.")
    return {"tuxpaint-stamps-default": tmp_path / "p"}


def test_end_to_end(stamps, tmp_path):
    pytest.importorskip("resvg_py")
    out = tmp_path / "out"
    tuxpaint.convert(stamps, out)
    sets = {part: ShardSet(out / part) for part in ("train", "test", "symbols")}
    keys = {part: list(shards.keys) for part, shards in sets.items()}
    assert keys["symbols"] == ["symbols/one"] and len(keys["train"]) + len(keys["test"]) == 40
    assert all(tuxpaint.part_of(key) == part for part in ("train", "test") for key in keys[part])
    part = next(part for part in ("train", "test") if "animals/aaqa_1" in keys[part])
    members = sets[part].read(keys[part].index("animals/aaqa_1")).members
    described = json.loads(members["json"])
    assert described["captions"] == {"en": ["Animal 0."], "de": ["Tier 0"]}
    assert (described["group"], described["folder"]) == ("animals/aaqa_1", "animals")
    assert members["fr.ogg"] == b"OggS-fr" and members["en.ogg"] == b"OggS-en" and "ogg" not in members
    drawing = decode_image(members["png"])  # 20 mm of 30 mm are visible, 60 mm high
    assert drawing.size == (320, 320) and [drawing.getpixel((x, 160)) for x in (100, 110, 210, 220)] == [
        (255, 255, 255),
        (0, 0, 255),
        (0, 0, 255),
        (255, 255, 255),
    ]
    other = sets["symbols"].read(0).members["png"]
    assert Image.open(io.BytesIO(other)).mode == "RGBA"
    photo = decode_image(other)  # cut to what is visible, 500 x 200, then shrunk to 320 x 128
    assert photo.size == (320, 320) and [photo.getpixel((5, y)) for y in (94, 98, 222, 226)] == [
        (255, 255, 255),
        (255, 0, 0),
        (255, 0, 0),
        (255, 255, 255),
    ]


def test_local_folder_of_any_version(stamps, tmp_path):
    pytest.importorskip("resvg_py")
    tuxpaint.convert({"local": stamps["tuxpaint-stamps-default"] / "usr" / "share" / "tuxpaint"}, tmp_path / "out")
    assert (tmp_path / "out" / "train" / "shards.json").is_file()


def test_a_broken_picture_is_named(stamps, tmp_path):
    root = stamps["tuxpaint-stamps-default"] / "usr" / "share" / "tuxpaint" / "stamps"
    (root / "animals" / "aaqa_1.svg").write_text("<svg")
    pytest.importorskip("resvg_py")
    with pytest.raises(AssetError, match=r"aaqa_1\.svg cannot be read"):
        tuxpaint.convert(stamps, tmp_path / "out")


def test_an_empty_package(tmp_path):
    with pytest.raises(AssetError, match="no stamp"):
        tuxpaint.convert({"local": tmp_path}, tmp_path / "out")
