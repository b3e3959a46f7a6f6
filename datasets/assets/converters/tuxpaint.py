"""Tux Paint's stamps: photographed cut-outs and drawings with their names in 78 languages and spoken descriptions in twelve.

Every stamp is `NAME.png` or `NAME.svg` beside `NAME.txt`: its English name, then lines `xx.utf8=NAME`. `NAME_desc_xx.ogg` speaks the name
in language xx (`NAME_desc.ogg`: English) and becomes the member `xx.ogg`.

The split is by concept: two stamps whose file names share a word that is not just a colour, a size or the like, or whose English names
are equal, stay on one side (`apple_red`, `apple_core`, the photographed and the drawn strawberry, `grave-a` to `grave-j`). Of 479
concepts two tenths are held out: 145 of 701 pictures (one tenth would leave 70). Among the 40 pairs over the split that an image encoder
finds most alike, three show one thing under two names (two road junctions, shamrock and clover, two hibiscus flowers).

Letters, digits, coins and musical notation (the folder `symbols`) are a third part: six pictures are "The letter a", so no one of them
is the right answer.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.progress import Progress

from modalign.zoo.errors import AssetError

from .. import places

PIXELS = 320  # at most
TEST_TENTHS = 2
SYMBOLS = "symbols"
# words of a file name that say nothing about what is shown
DESCRIPTORS = frozenset(
    {"red", "blue", "green", "yellow", "white", "black", "brown", "pink", "purple", "golden", "small", "large", "old", "new"}
    | {"photo", "drawing", "cartoon", "toy", "baby", "manga", "electric", "left", "right", "in", "out", "top", "front", "side"}
    | {"head", "sign", "with", "and"}
)
_LINE = re.compile(r"([A-Za-z]+(?:[_@][A-Za-z]+)?)\.utf8=(.*)")
_SPOKEN = re.compile(r"(.+)_desc(?:_([a-z]{2,3}))?\.ogg")
_VARIANTS = {"valencia": "valencia", "latin": "Latn"}


@dataclass(frozen=True)
class Stamp:
    """One stamp.

    Attributes:
        key: Its path below the stamps' folder, without suffix.
        picture: The SVG where there is one, as Tux Paint prefers it, else the PNG.
        captions: Language -> [name], English first.
        speech: Language -> recording.
    """

    key: str
    picture: Path
    captions: dict[str, list[str]]
    speech: dict[str, Path]

    @property
    def folder(self) -> str:
        """What kind of thing it is: `animals/mammals/dogs`."""
        return self.key.rpartition("/")[0]


def convert(sources: Mapping[str, Path], out: Path) -> None:
    """Writes ``train/``, ``test/`` and ``symbols/``.

    Args:
        sources: The unpacked package, or under ``"local"`` a folder with ``stamps`` of any version.
        out: The folder to fill.

    Raises:
        AssetError: If there are no stamps, or one cannot be read.
    """
    from ...shards.writer import write_shards

    local = sources.get("local")
    root = local / "stamps" if local else sources["tuxpaint-stamps-default"] / "usr" / "share" / "tuxpaint" / "stamps"
    stamps = list(read_stamps(root))
    if not stamps:
        raise AssetError(f"tuxpaint: there is no stamp in {root.name}; the package is not the expected one")
    concepts = concepts_of(stamp for stamp in stamps if not stamp.key.startswith(SYMBOLS))
    with Progress(console=places.CONSOLE) as progress:
        task = progress.add_task("tuxpaint: drawing", total=len(stamps))
        for part in ("train", "test", SYMBOLS):
            chosen = [stamp for stamp in stamps if part_of(concepts.get(stamp.key)) == part]
            if chosen:
                samples = progress.track((_sample(stamp, concepts) for stamp in chosen), total=len(stamps), task_id=task)
                write_shards(samples, out / part, task="image-text", source="tuxpaint-stamps")


def read_stamps(root: Path) -> Iterator[Stamp]:
    """Yields every stamp that has a picture and a name, by key.

    Args:
        root: The folder of stamps.
    """
    for path in sorted(root.rglob("*.txt")):
        captions = captions_of(path.read_text(encoding="utf-8"))
        pictures = [path.with_suffix(suffix) for suffix in (".svg", ".png") if path.with_suffix(suffix).is_file()]
        if captions and pictures:
            key = path.relative_to(root).with_suffix("").as_posix()
            yield Stamp(key, pictures[0], captions, _speech(path))


def captions_of(text: str) -> dict[str, list[str]]:
    """Reads a stamp's names: language -> [name]; nothing at all if the English one is missing.

    Args:
        text: The whole file.
    """
    first, *rest = text.splitlines() or [""]
    names = {"en": _clean(first)}
    for line in rest:
        if found := _LINE.fullmatch(line):
            names.setdefault(language_tag(found.group(1)), _clean(found.group(2)))
    return {language: [name] for language, name in names.items() if name} if names["en"] else {}


def language_tag(code: str) -> str:
    """Turns a locale into a language tag: `pt_BR` -> `pt-BR`, `sr@latin` -> `sr-Latn`.

    Args:
        code: The locale, as the files have it.
    """
    language, _, variant = code.partition("@")
    return f"{language}-{_VARIANTS.get(variant, variant)}" if variant else language.replace("_", "-")


def _clean(name: str) -> str:
    r"""Some names begin with a written-out `\t`."""
    return " ".join(re.sub(r"\\[tn]", " ", name).split())


def _speech(path: Path) -> dict[str, Path]:
    found = {}
    for recording in sorted(path.parent.glob(f"{path.stem}_desc*.ogg")):
        match = _SPOKEN.fullmatch(recording.name)
        if match and match.group(1) == path.stem:
            found[match.group(2) or "en"] = recording
    return found


def concepts_of(stamps: Iterable[Stamp]) -> dict[str, str]:
    """Groups stamps of one concept.

    Args:
        stamps: All stamps to be split.

    Returns:
        A stamp's key -> the first key of its group.
    """
    leader: dict[str, str] = {}

    def find(node: str) -> str:
        while leader.setdefault(node, node) != node:
            node = leader[node]
        return node

    keys = []
    for stamp in stamps:
        keys.append(stamp.key)
        for trait in _traits(stamp):
            first, second = sorted((find(f"stamp {stamp.key}"), find(trait)))
            leader[second] = first
    members: dict[str, list[str]] = {}
    for key in keys:
        members.setdefault(find(f"stamp {key}"), []).append(key)
    return {key: min(group) for group in members.values() for key in group}


def _traits(stamp: Stamp) -> Iterator[str]:
    """What two stamps of one concept share: a telling word of the file name (`grave-a`: grave), or the English name."""
    for word in re.findall(r"[A-Z]?[a-z]+", stamp.key.rpartition("/")[2]):
        if len(word) > 1 and word.lower() not in DESCRIPTORS:
            yield f"word {word.lower()}"
    yield f"name {stamp.captions['en'][0].lower()}"


def part_of(concept: str | None) -> str:
    """Returns the part a concept belongs to; None (a symbol) has a part of its own.

    Args:
        concept: As `concepts_of` names it.
    """
    if concept is None:
        return SYMBOLS
    digest = int(hashlib.md5(concept.encode(), usedforsecurity=False).hexdigest(), 16)
    return "test" if digest % 10 < TEST_TENTHS else "train"


def _sample(stamp: Stamp, concepts: Mapping[str, str]) -> dict[str, Any]:
    return {
        "key": stamp.key,
        "image": _png(stamp.picture),
        "image_ext": "png",
        "captions": stamp.captions,
        "members": {f"{language}.ogg": path.read_bytes() for language, path in stamp.speech.items()},
        "group": concepts.get(stamp.key, stamp.folder),
        "folder": stamp.folder,
    }


def _png(path: Path) -> bytes:
    """The picture with its transparency: what is visible of it, on a square, because image encoders crop what is not square."""
    import resvg_py
    from PIL import Image

    try:
        if path.suffix == ".svg":
            # system fonts are left out: the picture must not depend on the machine; some sizes are in points or millimetres
            text = path.read_text(encoding="utf-8")
            data = bytes(resvg_py.svg_to_bytes(text, width=2 * PIXELS, dpi=96, skip_system_fonts=True))
        else:
            data = path.read_bytes()
        picture = Image.open(io.BytesIO(data)).convert("RGBA")
    except (OSError, ValueError) as error:
        raise AssetError(f"tuxpaint: {path.name} cannot be read as a picture ({error})") from error
    picture = picture.crop(picture.getchannel("A").getbbox())
    picture.thumbnail((PIXELS, PIXELS), Image.Resampling.LANCZOS)
    side = max(picture.size)
    square = Image.new("RGBA", (side, side), (255, 255, 255, 0))
    square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    stream = io.BytesIO()
    square.save(stream, "PNG")
    return stream.getvalue()
