"""A scene: cut-outs pasted on a photograph, drawn by hash, with the boxes of what is visible of them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from modalign.zoo.errors import AssetError

if TYPE_CHECKING:
    from PIL import Image

PIXELS = (256, 320)  # longer side of a scene
SHARE = (0.25, 0.5)  # longer side of a cut-out to the shorter side of the scene
MAX_CUTOUTS = 3
OVERLAP = 0.1  # of the smaller of two boxes; less than any cut-out covers of its own, so that none is hidden
TRIES = 40
_NO_THINGS = frozenset({"the", "two", "some", "and", "with", "for", "from"})
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Cutout:
    """A picture with an alpha mask, cropped to what is visible: its key, its phrase, its concept, its kind of thing."""

    key: str
    phrase: str
    group: str
    folder: str
    picture: Image.Image


@dataclass(frozen=True)
class Photo:
    """An encoded photograph, and the words of its captions: what it shows already."""

    key: str
    data: bytes
    words: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Scene:
    """The picture, the photograph's key, and each cut-out with its box (x0, y0, x1, y1)."""

    picture: Image.Image
    photo: str
    placed: list[tuple[Cutout, Box]]


class Draws:
    """Numbers drawn by hash: the n-th draw of a name is always the same, on every machine and with every version of Python.

    Args:
        name: What is drawn for.
    """

    def __init__(self, name: str) -> None:
        self.name, self.count = name, 0

    def number(self) -> float:
        """Returns the next number, in [0, 1)."""
        digest = hashlib.sha256(f"{self.name}/{self.count}".encode()).digest()
        self.count += 1
        return int.from_bytes(digest[:6], "big") / 2**48

    def between(self, low: float, high: float) -> float:
        """Returns a number in [low, high)."""
        return low + (high - low) * self.number()

    def below(self, count: int) -> int:
        """Returns a whole number in [0, count)."""
        return int(self.number() * count)


def compose(photos: Sequence[Photo], cutouts: Sequence[Cutout], name: str) -> Scene:
    """Returns the scene of a name.

    Args:
        photos: To choose from.
        cutouts: To choose from. Two in one scene differ in phrase, concept and kind of thing, and no word of a phrase is in the
            photograph's captions, so that a phrase fits one thing only.
        name: Seed, part and number.

    Raises:
        AssetError: If no cut-out goes with the photograph that was drawn.
    """
    draws = Draws(name)
    photo = photos[draws.below(len(photos))]
    picture = _background(photo, draws)
    wanted = 1 + draws.below(MAX_CUTOUTS)
    owner = np.full((picture.height, picture.width), -1, dtype=np.int8)  # which cut-out a pixel shows
    placed: list[Cutout] = []
    frames: list[Box] = []
    for _ in range(TRIES):
        if len(placed) == wanted:
            break
        cutout = cutouts[draws.below(len(cutouts))]
        sized = _sized(cutout.picture, picture, draws)
        left, top = (draws.below(room + 1) for room in (picture.width - sized.width, picture.height - sized.height))
        frame = (left, top, left + sized.width, top + sized.height)
        if words_of(cutout.phrase) & photo.words or any(_alike(cutout, other) for other in placed):
            continue
        shown = np.asarray(sized)[..., 3] >= 128
        if not shown.any() or any(_overlap(frame, other) > OVERLAP for other in frames):
            continue
        picture.paste(sized, (left, top), sized)
        owner[top : frame[3], left : frame[2]][shown] = len(placed)
        placed.append(cutout)
        frames.append(frame)
    if not placed:
        raise AssetError(f"composed-scenes: none of {len(cutouts)} cut-outs goes with the photograph {photo.key!r}")
    return Scene(picture, photo.key, [(cutout, box_of_pixels(owner == number)) for number, cutout in enumerate(placed)])


def words_of(text: str) -> frozenset[str]:
    """Returns the words of a text that may name a thing, without the s of a plural: "Two red cars" -> red, car.

    Args:
        text: A phrase or a caption.
    """
    words = {word.removesuffix("s") for word in re.findall(r"[a-z]{3,}", text.lower())}
    return frozenset(words - _NO_THINGS)


def box_of_pixels(shown: np.ndarray) -> Box:
    """Returns the box (x0, y0, x1, y1) of the true pixels of a mask (H, W), as edges: a single pixel has width 1.

    Args:
        shown: The mask; at least one pixel is true.
    """
    rows, columns = np.flatnonzero(shown.any(axis=1)), np.flatnonzero(shown.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _background(photo: Photo, draws: Draws) -> Image.Image:
    from PIL import Image

    from ...decoding.table import decode_image

    picture = decode_image(photo.data)
    scale = (PIXELS[0] + draws.below(PIXELS[1] - PIXELS[0] + 1)) / max(picture.size)
    return picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.LANCZOS)


def _sized(cutout: Image.Image, scene: Image.Image, draws: Draws) -> Image.Image:
    from PIL import Image

    scale = draws.between(*SHARE) * min(scene.size) / max(cutout.size)
    return cutout.resize((max(1, round(cutout.width * scale)), max(1, round(cutout.height * scale))), Image.Resampling.LANCZOS)


def _alike(one: Cutout, other: Cutout) -> bool:
    return one.phrase.lower() == other.phrase.lower() or one.group == other.group or one.folder == other.folder


def _overlap(one: Box, other: Box) -> float:
    """Intersection over the smaller box."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return max(width, 0) * max(height, 0) / smaller
