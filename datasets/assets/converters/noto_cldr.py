"""Noto's colour emoji with the names that Unicode's CLDR gives them in 121 languages.

The font holds every emoji as a bitmap of 136 x 128 pixels (table CBDT); an emoji of several characters is the ligature that the font's
table GSUB makes of them. A language counts from 1,000 named pictures on; regional variants that only list what differs are left out.

`captions` has each language's name; English also has, as further captions, those of its keywords that are keywords of few pictures ("face"
is one of a hundred). The keywords of all languages are in the field `keywords`, not in the captions: they are a million, and whatever
keeps vectors of captions would have to embed them all.

The split is OpenMoji's, concept by concept: what is a test picture here is not a training picture there, nor the other way round.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from modalign.zoo.errors import AssetError

from .openmoji import SKIN_TONES, base, is_test

MIN_NAMES = 1000
TELLING = 5  # a keyword of at most so many pictures says something about each
SOURCE = "Noto Color Emoji 2.042 (drawings), CLDR 48.2 (names)"


def convert(sources: Mapping[str, Path], out: Path) -> None:
    """Writes ``train/`` and ``test/``.

    Args:
        sources: The two unpacked packages, or under ``"local"`` a folder with the font and CLDR's ``annotations``.
        out: The folder to fill.

    Raises:
        AssetError: If a package does not hold what is expected.
    """
    from ...shards.writer import write_shards

    local = sources.get("local")
    if local:
        font, annotations = local / "NotoColorEmoji.ttf", local / "annotations"
    else:
        fonts = sources["fonts-noto-color-emoji"] / "usr" / "share" / "fonts" / "truetype" / "noto"
        font, annotations = fonts / "NotoColorEmoji.ttf", sources["cldr-annotations-full"] / "package" / "annotations"
    names, keywords = read_annotations(annotations)
    pictures = read_pictures(font, [text for text in names.get("en", {}) if not SKIN_TONES.intersection(text)])
    if not pictures:
        raise AssetError("noto_cldr: no bitmap has an English name; the packages are not the expected ones")
    names = {language: texts for language, texts in names.items() if sum(text in pictures for text in texts) >= MIN_NAMES}
    for part in ("train", "test"):
        chosen = {text: image for text, image in pictures.items() if is_test(text) == (part == "test")}
        write_shards(_samples(chosen, names, keywords), out / part, task="image-text", source=SOURCE)


def read_annotations(folder: Path) -> tuple[dict[str, dict[str, str]], dict[str, dict[str, list[str]]]]:
    """Reads CLDR's names and keywords.

    Args:
        folder: One folder per language with ``annotations.json``.

    Returns:
        Language -> emoji -> name, English first; language -> emoji -> keywords other than the name.

    Raises:
        AssetError: If a file is not as expected, or there is no English.
    """
    names: dict[str, dict[str, str]] = {"en": {}}
    keywords: dict[str, dict[str, list[str]]] = {}
    for path in sorted(folder.glob("*/annotations.json")):
        try:
            entries = json.loads(path.read_text(encoding="utf-8"))["annotations"].get("annotations", {})
            named = {text: entry["tts"][0].strip() for text, entry in entries.items() if entry.get("tts")}
            others = {text: list(entry.get("default", [])) for text, entry in entries.items()}
        except (OSError, ValueError, KeyError, IndexError, AttributeError) as error:
            raise AssetError(f"noto_cldr: {path.parent.name}/{path.name} cannot be read ({error!r})") from error
        language = path.parent.name
        names[language] = {text: name for text, name in named.items() if name}
        keywords[language] = {
            text: [word.strip() for word in words if word.strip() and word.strip() != named.get(text)]
            for text, words in others.items()
        }
    if not names["en"]:
        raise AssetError("noto_cldr: the annotations hold no English names; the package is not the expected one")
    return names, keywords


def read_pictures(font: Path, texts: list[str]) -> dict[str, bytes]:
    """Takes the bitmaps of emoji out of a colour font.

    Args:
        font: A font with the tables CBDT and GSUB.
        texts: Emoji, with or without presentation marks.

    Returns:
        Emoji -> PNG, for those the font has.

    Raises:
        AssetError: If the font has no bitmaps.
    """
    from fontTools.ttLib import TTFont, TTLibError

    try:
        tables = TTFont(font, lazy=True)
        bitmaps = tables["CBDT"].strikeData[0]
        ligatures, glyphs = dict(_ligatures(tables)), tables.getBestCmap()
    except (OSError, KeyError, IndexError, TTLibError) as error:
        raise AssetError(f"noto_cldr: {font.name} is not a font with colour bitmaps ({error})") from error
    found = {}
    for text in texts:
        sequence = tuple(glyphs.get(ord(char), "") for char in text if char != "\ufe0f")
        glyph = sequence[0] if len(sequence) == 1 else ligatures.get(sequence, "")
        if glyph in bitmaps:
            found[text] = bytes(bitmaps[glyph].imageData)
    return found


def _ligatures(tables: Any) -> Iterator[tuple[tuple[str, ...], str]]:
    """(glyphs, the one glyph that stands for them)."""
    for lookup in tables["GSUB"].table.LookupList.Lookup:
        for table in lookup.SubTable:
            for first, choices in getattr(table, "ligatures", {}).items():
                for choice in choices:
                    yield (first, *choice.Component), choice.LigGlyph


def _samples(
    pictures: Mapping[str, bytes], names: Mapping[str, Mapping[str, str]], keywords: Mapping[str, Mapping[str, list[str]]]
) -> Iterator[dict[str, Any]]:
    used = Counter(word for words in keywords["en"].values() for word in words)
    for text in sorted(pictures):
        captions = {language: [texts[text]] for language, texts in names.items() if text in texts}
        captions["en"] += [word for word in keywords["en"].get(text, []) if used[word] <= TELLING]
        yield {
            "key": "-".join(f"{ord(char):X}" for char in text),
            "image": pictures[text],
            "image_ext": "png",
            "captions": captions,
            "group": base(text),
            "emoji": text,
            "keywords": {language: keywords[language][text] for language in names if keywords[language].get(text)},
        }
