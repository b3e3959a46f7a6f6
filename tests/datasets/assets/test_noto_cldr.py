"""Noto's bitmaps and CLDR's names: a small real font made here, small annotations, and the split shared with OpenMoji."""

import io
import json

import pytest
from PIL import Image

from modalign.datasets.assets.converters import noto_cldr, openmoji
from modalign.datasets.shards import ShardSet
from modalign.zoo.errors import AssetError

ANIMALS = [chr(0x1F400 + number) for number in range(30)]
COUPLE = "\U0001f469\u200d\U0001f4bb"


def png(colour):
    stream = io.BytesIO()
    Image.new("RGB", (13, 12), colour).save(stream, "PNG")
    return stream.getvalue()


def toy_font():
    """A font with a bitmap per animal, a woman, a laptop, and a ligature of both; the ligature's bitmap is green."""
    from fontTools.feaLib.builder import addOpenTypeFeaturesFromString
    from fontTools.fontBuilder import FontBuilder
    from fontTools.ttLib import newTable
    from fontTools.ttLib.tables.C_B_D_T_ import cbdt_bitmap_format_17

    letters = {f"animal{n}": char for n, char in enumerate(ANIMALS)}
    letters |= {"woman": "\U0001f469", "joiner": "\u200d", "laptop": "\U0001f4bb"}
    order = [".notdef", *letters, "together"]
    font = FontBuilder(1024, isTTF=True)
    font.setupGlyphOrder(order)
    font.setupCharacterMap({ord(char): name for name, char in letters.items()})
    font.setupHorizontalMetrics({name: (1024, 0) for name in order})
    font.setupHorizontalHeader()
    font.setupNameTable({"familyName": "Toy", "styleName": "Regular"})
    font.setupOS2()
    font.setupPost()
    addOpenTypeFeaturesFromString(font.font, "feature ccmp { sub woman joiner laptop by together; } ccmp;")
    pictures = {}
    for name in [*list(letters)[:31], "together"]:
        picture = cbdt_bitmap_format_17(b"", font.font)
        picture.imageData = png("green" if name == "together" else "red")
        pictures[name] = picture
    font.font["CBDT"] = newTable("CBDT")
    font.font["CBDT"].version, font.font["CBDT"].strikeData = 3.0, [pictures]
    return font.font


class Tables(dict):
    """The font as the reader sees it."""

    def getBestCmap(self):
        return self["cmap"].getBestCmap()


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A local folder: the font stays in memory, its tables as fontTools reads them from a file."""
    import fontTools.ttLib

    font = toy_font()
    tables = Tables({tag: font[tag] for tag in ("cmap", "GSUB", "CBDT")})
    monkeypatch.setattr(fontTools.ttLib, "TTFont", lambda path, lazy: tables)
    monkeypatch.setattr(noto_cldr, "MIN_NAMES", 20)
    texts = [*ANIMALS, COUPLE, "\U0001f44b\U0001f3fb", "?"]

    def write(language, entries):
        folder = tmp_path / "annotations" / language
        folder.mkdir(parents=True)
        (folder / "annotations.json").write_text(json.dumps({"annotations": {"annotations": entries}}))

    def entry(name, *keywords):
        return {"default": [name, *keywords], "tts": [name]}

    write("en", {text: entry(f"thing {n}", "animal", f"word {n}") for n, text in enumerate(texts)})
    write("si", {text: entry(f"\u0daf {n}", "\u0dc3") for n, text in enumerate(texts)})
    write("en-GB", {text: entry(f"fing {n}") for n, text in enumerate(texts[:3])})
    (tmp_path / "annotations" / "und").mkdir()
    (tmp_path / "annotations" / "und" / "annotations.json").write_text('{"annotations": {"identity": {}}}')
    return {"local": tmp_path}


def test_end_to_end(source, tmp_path):
    out = tmp_path / "out"
    noto_cldr.convert(source, out)
    samples = {}
    for part in ("train", "test"):
        shards = ShardSet(out / part)
        for number, key in enumerate(shards.keys):
            members = shards.read(number).members
            samples[key] = json.loads(members["json"]) | {"part": part, "png": members["png"]}
    texts = {"".join(chr(int(code, 16)) for code in key.split("-")) for key in samples}
    assert texts == {*ANIMALS, COUPLE}  # no skin tone, nothing without a bitmap
    first = samples["1F400"]
    assert first["captions"] == {"en": ["thing 0", "word 0"], "si": ["\u0daf 0"]}  # "animal" is everybody's keyword
    assert first["keywords"] == {"en": ["animal", "word 0"], "si": ["\u0dc3"]}
    for sample in samples.values():
        assert sample["part"] == ("test" if openmoji.is_test(sample["emoji"]) else "train")
        assert sample["group"] == openmoji.base(sample["emoji"])
    together = Image.open(io.BytesIO(samples["1F469-200D-1F4BB"]["png"]))
    assert together.getpixel((5, 5)) == (0, 128, 0) and Image.open(io.BytesIO(first["png"])).getpixel((5, 5)) == (255, 0, 0)


def test_split_is_that_of_openmoji():
    """With or without presentation mark, a woman or a man: the same side in both data sets."""
    for plain in ("\u2764", "\U0001f575", "\U0001f3f3\u200d\U0001f308", "\U0001f469\u200d\U0001f52c"):
        marked = plain[0] + "\ufe0f" + plain[1:]
        assert openmoji.is_test(plain) == openmoji.is_test(marked) == noto_cldr.is_test(plain)


@pytest.mark.parametrize("content", ["{", '{"annotations": 3}', '{"annotations": {"annotations": {"x": {"tts": [3]}}}}'])
def test_broken_annotations_are_named(source, tmp_path, content):
    (tmp_path / "annotations" / "si" / "annotations.json").write_text(content)
    with pytest.raises(AssetError, match=r"si/annotations\.json cannot be read"):
        noto_cldr.convert(source, tmp_path / "out")


def test_no_english(source, tmp_path):
    (tmp_path / "annotations" / "en" / "annotations.json").unlink()
    with pytest.raises(AssetError, match="no English names"):
        noto_cldr.convert(source, tmp_path / "out")


def test_a_font_without_bitmaps(tmp_path):
    (tmp_path / "NotoColorEmoji.ttf").write_bytes(b"no font")
    with pytest.raises(AssetError, match="not a font with colour bitmaps"):
        noto_cldr.read_pictures(tmp_path / "NotoColorEmoji.ttf", ["x"])
