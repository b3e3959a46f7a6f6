"""composed-scenes: cut-outs of the asset tuxpaint on photographs of the asset flickr8k_multilingual, with exact boxes.

A scene is a photograph with one to three cut-outs; a cut-out's phrase is its English name. Which photograph and which cut-outs, their
sizes and places follow from (seed, part, number) by hash alone. Parts share neither photographs nor cut-outs: test/ takes the test parts
of both assets, dev/ the dev photographs and a tenth of the training concepts.

Left out are stamps whose name is no short noun phrase ("Eat your broccoli!"), that fill their frame (there is no outline), and that are
hardly there (the goal posts). Letters and digits (the asset's symbols/) name no thing.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress

from modalign.zoo.errors import AssetError

from .. import places
from ..lookup import folder_of
from .scene import Cutout, Photo, Scene, compose, words_of

SEED = 0
SIZES = {"train": 2000, "dev": 200, "test": 200}
DEV_TENTHS = 1  # of the training concepts
MAX_WORDS = 5
OPAQUE = (0.15, 0.97)  # share of a cut-out's frame that it covers
MIN_ASPECT = 0.15
_PHRASE = re.compile(r"(A|An|The|Two|Some) [^.!?,;:“”—…]+")


def convert(sources: Mapping[str, Path], out: Path) -> None:
    """Writes ``train/``, ``dev/`` and ``test/``; gets the two assets if they are not there.

    Args:
        sources: Not looked at: everything comes from the two assets.
        out: The folder to fill.

    Raises:
        AssetError: If an asset cannot be had or has nothing to make scenes of.
    """
    from ...shards.writer import write_shards

    photographs = folder_of("flickr8k_multilingual")  # first: it is here or not, while the other may be a long download
    stamps = folder_of("tuxpaint")
    cutouts = {"train": list(read_cutouts(stamps / "train")), "test": list(read_cutouts(stamps / "test"))}
    cutouts["dev"] = [one for one in cutouts["train"] if is_dev(one.group)]
    cutouts["train"] = [one for one in cutouts["train"] if not is_dev(one.group)]
    with Progress(console=places.CONSOLE) as progress:
        for part, count in SIZES.items():
            photos = list(read_photos(photographs / part))
            if not photos or not cutouts[part]:
                raise AssetError(f"composed-scenes: there is no photograph or no cut-out for {part}")
            scenes = (compose(photos, cutouts[part], f"{SEED}/{part}/{number}") for number in range(count))
            tracked = progress.track(scenes, total=count, description=f"composed-scenes: {part}")
            samples = (_sample(number, scene) for number, scene in enumerate(tracked))
            write_shards(samples, out / part, task="grounding", source="tuxpaint on flickr8k_multilingual (research use only)")


def read_cutouts(folder: Path) -> Iterator[Cutout]:
    """Yields the cut-outs of a part of tuxpaint that can be found again in a scene by their name.

    Args:
        folder: Shards of the asset.
    """
    from PIL import Image

    from ...decoding.sample import decode_sample
    from ...shards import ShardSet

    for raw in ShardSet(folder).samples(["json", "png"]):
        sample = decode_sample(raw, ["json"])
        phrase = phrase_of(sample.captions["en"][0])
        picture = Image.open(io.BytesIO(raw.members["png"])).convert("RGBA")
        picture = picture.crop(picture.getchannel("A").point(lambda alpha: 255 * (alpha >= 128)).getbbox())
        if phrase is not None and is_outline(picture):
            yield Cutout(raw.key, phrase, sample.meta["group"], sample.meta["folder"], picture)


def read_photos(folder: Path) -> Iterator[Photo]:
    """Yields the photographs of a part of flickr8k_multilingual.

    Args:
        folder: Shards of the asset.
    """
    from ...decoding.media import select
    from ...decoding.sample import decode_sample
    from ...shards import ShardSet

    for raw in ShardSet(folder).samples(["image", "json"]):
        captions = decode_sample(raw, ["json"]).captions["en"]
        yield Photo(raw.key, raw.members[select(raw.members, ["image"])[0]], words_of(" ".join(captions)))


def phrase_of(caption: str) -> str | None:
    """Returns the phrase of a stamp's English name, without the full stop; None if it is no short noun phrase.

    Args:
        caption: The name: "A red apple."
    """
    phrase = caption.strip().removesuffix(".")
    return phrase if _PHRASE.fullmatch(phrase) and len(phrase.split()) <= MAX_WORDS else None


def is_outline(picture: Any) -> bool:
    """True for a picture that is neither its whole frame nor next to nothing of it, nor a mere stroke.

    Args:
        picture: RGBA, cropped to what is visible.
    """
    shown = (np.asarray(picture)[..., 3] >= 128).mean()
    return bool(OPAQUE[0] <= shown <= OPAQUE[1]) and min(picture.size) >= MIN_ASPECT * max(picture.size)


def is_dev(group: str) -> bool:
    """True for a training concept that only dev scenes show.

    Args:
        group: The concept, as tuxpaint names it.
    """
    return int(hashlib.md5(f"dev {group}".encode(), usedforsecurity=False).hexdigest(), 16) % 10 < DEV_TENTHS


def _sample(number: int, scene: Scene) -> dict[str, Any]:
    stream = io.BytesIO()
    scene.picture.save(stream, "JPEG", quality=90)
    regions = [{"box": list(box), "phrase": cutout.phrase} for cutout, box in scene.placed]
    return {
        "key": f"scene{number:05d}",
        "image": stream.getvalue(),
        "image_ext": "jpg",
        "group": scene.photo,
        "photo": scene.photo,
        "cutouts": [cutout.key for cutout, _ in scene.placed],
        "regions": regions,
    }
